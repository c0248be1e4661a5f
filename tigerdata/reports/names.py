"""Where names of people stand in reports: after a label, before a title, before sex and age. Chinese and English.

A name in running text without any of these cannot be told from other words by rules; the columns of an export that hold
names help there (`personal.redact(..., known=...)`).
"""

from __future__ import annotations

import re

SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章云苏潘葛奚范彭郎鲁韦昌马苗凤花方"
    "俞任袁柳酆鲍史唐费廉岑薛雷贺倪汤滕殷罗毕郝邬安常乐于时傅皮卞齐康伍余元卜顾孟平黄和穆萧肖尹姚邵湛汪祁毛禹狄米贝明臧"
    "计伏成戴谈宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季麻强贾路娄危江童颜郭梅盛林刁钟徐邱骆高夏蔡田樊胡凌霍虞万支柯管卢莫经"
    "房裘缪干解应宗丁宣贲邓郁单杭洪包诸左石崔吉钮龚程嵇邢滑裴陆荣翁荀羊甄曲家封芮羿储靳汲邴糜松井段富巫乌焦巴弓牧隗山"
    "谷车侯宓蓬全郗班仰秋仲伊宫宁仇栾暴甘厉戎祖武符刘景詹束龙叶幸司韶郜黎蓟薄印宿白怀蒲邰从鄂索咸籍赖卓蔺屠蒙池乔阴胥"
    "闫覃阎冉亓佟逄邸欧仝苟褟楚晏柴瞿阳向涂冼農农练敖游岳帅"
)
COMPOUND = "欧阳|上官|司马|诸葛|皇甫|尉迟|令狐|慕容|司徒|夏侯|东方|公孙|长孙|宇文|端木|独孤|南宫|轩辕|闻人|申屠"
HAN = "一-鿿"
# A surname is also a common word: 左 (left), 单 (single), 高, 明, 平, 石. These words begin like names and are none.
NO_NAME = (
    r"左[叶侧颈右肾乳上下中]|右[叶侧]|双侧|单[发纯个侧]|高[血回度频位]|明[显确]|平[卧躺均坦]|石[灰蜡]|安[静全]|应[当该]|"
    r"成[年功]|全[身部面程]|时[有感常]|常[规见]|经[期常过超治]|家[属族人]|水[平肿]|强回|解[剖释]|方[便向]|华[氏]|计[划]|"
    r"田|何[时种]|支[气]|管[内腔壁]|山[东西]|曲[面张]|相[关]|包[膜块]|宿[主]|白[细色]|荣[誉]|毛[刺玻糙发]|全[切]|束[状]|"
    r"于|和|从|向|游离|项[目]|季[节]|年[龄]|印[象]|封[闭]|景[象]|井[然]|"
    r"主[任诉治]|医[生师院]|护士|签[名字]|姓名|本[人次院]|门诊|住院|体检|检查|超声|甲状|乳腺|颈部|结节|仰卧|取|自[述诉]|"
    r"因|已|未|有|无|诉|既往|目前|近|系|为|曾|行|来|要求|配合|不|术|约|现|后|否认|女性|男性|中年|老年|青年|患者|所|"
    r"建议|复查|随访|随诊|考虑|可能|诊断|详见|会诊|意见|予以|查房|一般|体位|信息|资料|情况|基本|性别"
)
NOT = rf"(?!(?:{NO_NAME}))"
BOUND = r"(?=$|[\s，,。；;、()（）:：\[\]【】/|男女性岁0-9])"
NEXT = "左[叶侧颈]|右[叶侧颈]|双侧|甲状腺|颈部|乳腺|因|来院|主诉|主因|自述|既往|术后|已婚|未婚|体检"
GAP = r"[ \t]*[:：]?[ \t]*"
MINORITY = rf"[{HAN}]{{2,6}}·[{HAN}]{{2,6}}"
SPACED = rf"(?:[{SURNAMES}][ \t]+[{HAN}][ \t]+(?![男女])[{HAN}](?![{HAN}])|[{SURNAMES}][ \t]?[{HAN}][{HAN}]??)"
NAME_ZH = rf"(?:{MINORITY}|(?:{COMPOUND})[{HAN}]{{1,2}}|{SPACED}|[{SURNAMES}][某\*＊×xX○]{{1,2}})"
PEOPLE_ZH = (
    "姓名|患者姓名|病人姓名|病员姓名|受检者姓名|受检者|受检人|检查医[师生]|报告医[师生]|审核医[师生]|诊断医[师生]|申请医[师生]|送检医[师生]|"
    "主治医[师生]|主管医[师生]|操作医[师生]|超声医[师生]|书写医[师生]|会诊医[师生]|检查者|报告者|审核者|操作者|记录者|记录员|录入员|录入者|书写者|"
    "医师签名|医生签名|签名|签字|联系人|监护人|家属姓名|家属|责任护士|医[师生]"
)
TITLES_ZH = "副?主任医师|主治医师|住院医师|医[师生]|主任|教授|护士长?|大夫|先生|女士|小姐|老师|同志"

LATIN = r"[A-Z][a-zA-ZÀ-ÿ]*(?:['’-][A-Z]?[a-zA-ZÀ-ÿ]+)*"
NOT_EN = (
    r"(?!(?:History|Name|Id|ID|Age|Sex|Date|Status|The|This|No|Not|None|Normal|Right|Left|Both|Thyroid|Ultrasound|US|"
    r"Nodule|Findings|Impression|Exam|Examination|Clinical|Indication|Technique|Comparison|Unknown|Male|Female|MD|Year|"
    r"Position|Preparation|Information|Data|Care|Education|Is|Was|Has|Had|With|In|Of|To|For|And|Solid|Cystic|Mixed|"
    r"Hypoechoic|Hyperechoic|Isoechoic|Size|Location|Composition|Shape|Margins?|Type|Report|Doppler|Neck|Breast|"
    r"Follow|Recommend|See|Seen|FNA|TI|TR|BI|RADS|ACR|MRN|DOB|Supine|Reports?|Presents?|Denies|Complains)\b)"
)
FULL_EN = rf"{NOT_EN}{LATIN}(?:,[ ]?|[ ])(?:[A-Z]\.?[ ])?{NOT_EN}{LATIN}(?:[ ]{NOT_EN}{LATIN})?"
NAME_EN = rf"(?:{FULL_EN}|{NOT_EN}{LATIN})"
PEOPLE_EN = (
    r"(?:patient(?:'s)? name|name of patient|patient|pt|name|full name|surname|first name|last name|radiologist|"
    r"sonographer|sonologist|physician|"
    r"referring physician|ordering physician|attending(?: physician)?|referring doctor|doctor|"
    r"technologist|technician|operator|reported by|performed by|dictated by|signed by|verified by|approved by|"
    r"interpreted by|read by|reviewed by|transcribed by|examined by|requested by|referred by|contact person|"
    r"next of kin|signature|electronically signed by)"
)
TITLE_EN = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Drs|Prof|Professor|Doctor|Nurse|Sir|Madam)"

# Each pattern goes with the sign (`personal_patterns.SIGNS`) that it needs; its group `n` is the name.
STANDARD: tuple[tuple[str, re.Pattern[str]], ...] = (
    # A label with a colon: whatever stands there is a name, of two to four characters, also spaced out ("王 小 明").
    (
        "people",
        re.compile(
            rf"(?:{PEOPLE_ZH})[ \t]*[:：][ \t]*(?P<n>{NOT}{NAME_ZH}|{NOT}[{HAN}·]{{2,4}}?)"
            rf"(?=$|[\s，,。；;、()（）:：\[\]【】/|0-9A-Za-z]|男|女|性别|年龄|科|检查|报告|审核|日期|电话|住院|门诊)",
            re.MULTILINE,
        ),
    ),
    (
        "people",
        re.compile(
            rf"(?:姓名|受检者)[ \t]*(?P<n>{NOT}{NAME_ZH})(?=$|[\s，,。；;、()（）/|0-9]|男|女|性别|年龄)", re.MULTILINE
        ),
    ),
    (
        "people",
        re.compile(rf"(?:患者|病人|病员|患儿|产妇|孕妇){GAP}(?P<n>{NOT}{NAME_ZH})(?:{BOUND}|(?={NEXT}))", re.MULTILINE),
    ),
    (
        "people",
        re.compile(rf"(?<![{HAN}])(?P<n>{NOT}{NAME_ZH})(?=[ \t，,、]*(?:男|女)性?[ \t，,、]*\d{{1,3}}[ \t]*岁)"),
    ),
    (
        "people",
        re.compile(rf"(?<![{HAN}])(?P<n>{NOT}(?:(?:{COMPOUND})|[{SURNAMES}])[{HAN}]{{0,2}}?)(?=(?:{TITLES_ZH}))"),
    ),
    (
        "people",
        re.compile(
            rf"(?:由|经|请|与|和|告知|联系|及|转){GAP}(?P<n>{NOT}(?:(?:{COMPOUND})|[{SURNAMES}])[{HAN}]{{0,2}}?)(?=(?:{TITLES_ZH}))"
        ),
    ),
    # English.
    ("latin", re.compile(rf"(?<![A-Za-z])(?i:{PEOPLE_EN})[ \t]*[:#][ \t]*(?:{TITLE_EN}\.?[ ])?(?P<n>{NAME_EN})")),
    (
        "latin",
        re.compile(
            rf"(?<![A-Za-z])(?i:(?:reported|performed|dictated|signed|verified|approved|interpreted|reviewed|transcribed|examined|"
            rf"requested|referred|seen|read)[ ]by)[ ](?:{TITLE_EN}\.?[ ])?(?P<n>{FULL_EN})"
        ),
    ),
    ("latin", re.compile(rf"(?<![A-Za-z])(?:Patient|PATIENT|Pt)\.?[ ](?P<n>{FULL_EN})")),
    ("latin", re.compile(rf"(?<![A-Za-z]){TITLE_EN}\.?[ ](?P<n>{NAME_EN})")),
    ("latin", re.compile(rf"(?P<n>{FULL_EN})(?=,?[ ](?:M\.?D\.?|MBBS|Ph\.?D\.?|FRCR|RDMS|DO|RN)(?![A-Za-z]))")),
    ("latin", re.compile(rf"(?<![A-Za-z])I, (?P<n>{FULL_EN})(?=,)")),
    ("latin", re.compile(rf"(?P<n>{FULL_EN})(?=,?[ ](?:is[ ])?(?:an?[ ])?\d{{1,3}}[ -]?(?:years?|yrs?|y/?o|yo)\b)")),
)
# What `--phi strict` removes besides: anything like a name after a label, whatever the surname, and hospitals.
STRICT: tuple[re.Pattern[str], ...] = (
    re.compile(
        rf"(?:{PEOPLE_ZH}|患者|病人)[ \t]*[:：][ \t]*"
        rf"(?P<n>{NOT}[{HAN}·]{{1,6}}|[A-Za-z][A-Za-z'.-]*(?:[ ][A-Za-z'.-]+){{0,2}})"
    ),
    re.compile(
        rf"(?<![A-Za-z])(?i:{PEOPLE_EN})[ \t]*[:#][ \t]*(?P<n>[A-Za-z][A-Za-z'’.-]*(?:,?[ ][A-Z][A-Za-z'’.-]*){{0,3}})"
    ),
    re.compile(rf"(?P<n>[{HAN}]{{2,12}}(?:医院|卫生院|门诊部|诊所|体检中心))"),
    re.compile(rf"(?P<n>(?:{LATIN}[ ]){{1,4}}(?:Hospital|Clinic|Medical Center|Medical Centre|Infirmary))"),
)
