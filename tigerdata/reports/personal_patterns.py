"""The patterns of personal data other than names and dates: cards, telephones, record numbers, accounts, addresses.

Each entry of `PATTERNS` is (sign, kind, pattern); group `n` of the pattern is what goes. A sign (`SIGNS`) is one look
for something that all patterns of its group need: most findings have none of them, and are left after five looks.
"""

from __future__ import annotations

import re

from tigerdata.reports.names import HAN

GAP = r"[ \t]*(?:号码|编号|号|码|No\.?|no\.?|number|Number|#)?[ \t]*[:：#]?[ \t]*"
# A record number: three characters or more with a digit in front. A size or an age is none.
CODE = (
    r"(?P<n>[A-Za-z]{0,4}[-_]?\d(?:[-_/]?[\dA-Za-z]){2,24}(?![\dA-Za-z])(?![ ]?(?:mm|cm|岁|级|分|ml|MHz)))"
    r"(?!\.\d)(?![ ]?[x×*])"
)
SIZE = r"(?!\d{1,3}(?:\.\d+)?[- ]?(?:x|X|×|mm|cm|y|%|week|month|day|MHz))"
CODE_EN = r"(?=[A-Za-z/_-]{0,8}\d)[A-Za-z\d][\dA-Za-z/_-]"
NUMBERS_ZH = (
    "住院|门诊|急诊|病案|病历|病人|患者|检查|超声|影像|放射|登记|就诊|就诊卡|诊疗卡|健康卡|社保卡|医保卡|医保|申请单|申请|标本|"
    "病理|条码|流水|体检|报告|检验|卡|床位|病床|档案|队列|序列|设备|机器|处方|发票|保险"
)
RECORD_EN = (
    "MRN|medical record|hospital|record|accession|patient id|patient|patient identifier|exam|examination|study|"
    "study id|exam id|case|visit|encounter|account|acct|specimen|chart|file|admission|inpatient|outpatient|"
    "registration|order|requisition|insurance|policy|member|device|serial|report|id"
)
ADDRESS_ZH = (
    "家庭住址|家庭地址|现住址|户籍地址|户口地址|联系地址|通讯地址|居住地|住址|地址|籍贯|"
    "工作单位|单位(?=[ \\t]*[:：])|家住|住在|现住"
)
NOT_PLACE = "超声|检查|所见|甲状腺|乳腺|电话|手机|姓名|左叶|右叶|结节"
WAY_EN = (
    "Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Boulevard|Blvd|Court|Crescent|Terrace|Square|Place|Parkway|Highway|Way"
)

SIGNS: dict[str, re.Pattern[str]] = {
    "digits": re.compile(r"\d[\d .()-]{3}"),
    "latin": re.compile(r"[A-Z][a-z]|[a-z]{4}|[A-Z]{2},? [A-Z]|@|(?i:mrn|ssn|wechat|qq|tel)"),
    "labels": re.compile(r"(?:[号码编证照]|ID|电话|手机|联系|热线|传真|床|微信|QQ)\D{0,8}\d|\d床|微信|QQ"),
    "place": re.compile(r"[省市路街巷弄址籍]|单位|家住|住在|现住|家园|花园|新村|公寓|小区|自治区|胡同"),
    "people": re.compile(
        r"姓名|患者|病人|病员|患儿|产妇|孕妇|受检|医[师生]|主任|教授|护士|大夫|先生|女士|小姐|老师|同志|签[名字]|岁|[者员人属]\s*[:：]"
    ),
}

ID_CARD = re.compile(
    r"(?<![\dA-Za-z])(?P<n>"
    r"[1-9]\d{5}[ -]?(?:18|19|20)\d\d[ -]?(?:0[1-9]|1[0-2])[ -]?(?:0[1-9]|[12]\d|3[01])[ -]?\d{3}[\dXx]"
    r"|[1-9]\d{5}\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}"
    r"|\d(?:[ -]?\d){16}[ -]?[\dXx])(?![\dA-Za-z])"
)
LONG_DIGITS = re.compile(r"(?<![\d.])(?P<n>[A-Za-z]{0,3}\d(?:[-_]?\d){5,})(?![\d.]?\d)")
OLD_AGE = re.compile(r"(?<![\d.])(?P<n>9\d|1[0-2]\d)(?=[ ]?(?:周?岁|[- ]?years?[- ]old|[- ]?y/?o\b|[- ]?yrs?\b))")

PATTERNS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    (
        "labels",
        "id_card",
        re.compile(rf"(?:身份证|证件|护照|军官证|驾驶证|通行证){GAP}(?P<n>[A-Za-z]{{0,2}}\d(?:[- ]?[\dXx*]){{5,20}})"),
    ),
    (
        "latin",
        "id_card",
        re.compile(
            r"(?<![A-Za-z])(?i:identity card|id card|national id|identity number|passport|ssn|social security)"
            rf"(?i:[ ](?:number|no\.?))?{GAP}(?P<n>[A-Za-z]{{0,2}}\d(?:[- ]?[\dXx*]){{5,20}})"
        ),
    ),
    ("digits", "id_card", re.compile(r"(?<![\dA-Za-z-])(?P<n>\d{3}-\d{2}-\d{4})(?![\dA-Za-z-])")),
    ("labels", "number", re.compile(rf"(?:{NUMBERS_ZH})(?:号码|编号|条码|ID|id|号|码)[ \t]*[:：#]?[ \t]*{CODE}")),
    ("labels", "number", re.compile(rf"(?:(?<![A-Za-z])ID|编号|编码)[ \t]*[:：#][ \t]*{CODE}")),
    (
        "labels",
        "number",
        re.compile(r"(?:床号|床位|(?<!临)床)[ \t]*[:：]?[ \t]*(?P<n>[A-Za-z]?\+?\d{1,4}(?=床|号|[，,。；;\s]|$))"),
    ),
    ("labels", "number", re.compile(r"(?<![A-Za-z\d])(?P<n>\d{1,4})(?=床(?!旁|边))")),
    (
        "latin",
        "number",
        re.compile(
            r"(?<![A-Za-z])(?i:bed|room|ward)[ \t]*(?i:no\.?|number)?[ \t]*[:#]?[ \t]*"
            r"(?P<n>[A-Z]?\d{1,4}[A-Z]?)(?![\dA-Za-z])(?!\.\d)"
        ),
    ),
    (
        "latin",
        "number",
        re.compile(
            rf"(?<![A-Za-z])(?i:{RECORD_EN})[ \t]*(?i:number|no\.?|num|id|identifier|#)?[ \t]*[:#][ \t]*"
            rf"(?P<n>{SIZE}{CODE_EN}{{2,30}})(?!\.\d)"
        ),
    ),
    (
        "latin",
        "number",
        re.compile(
            r"(?<![A-Za-z])(?i:MRN|accession|patient id|(?:medical record|hospital|accession|exam|examination|study|"
            r"case|visit|account|specimen|chart|admission|record|order) (?:number|no\.?|id))[ \t]*(?:is[ ])?"
            rf"(?P<n>{SIZE}{CODE_EN}{{3,30}})(?!\.\d)"
        ),
    ),
    (
        "labels",
        "phone",
        re.compile(
            r"(?:电话|手机|联系方式|热线|传真)[ \t]*(?:号码|号)?[ \t]*[:：]?[ \t]*"
            r"(?P<n>\+?\(?\d(?:[-. ()转]{0,2}\d){6,16})"
        ),
    ),
    (
        "latin",
        "phone",
        re.compile(
            r"(?<![A-Za-z])(?i:tel|telephone|phone|mobile|cell|fax|contact|call)\.?[ \t]*"
            r"(?i:phone|number|no\.?)?[ \t]*[:：]?"
            r"[ \t]*(?P<n>\+?\(?\d(?:[-. ()]{0,2}\d){6,14})"
        ),
    ),
    ("digits", "phone", re.compile(r"(?<![\d.])(?P<n>(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4})(?!\d)")),
    (
        "digits",
        "phone",
        re.compile(r"(?<![\d.])(?P<n>\(?0\d{2,3}\)?[- ]?\d{4}[- ]?\d{3,4}(?:[-转]\d{1,5})?)(?![\d.])"),
    ),
    ("digits", "phone", re.compile(r"(?<![\d.])(?P<n>[48]00[- ]\d{3,4}[- ]\d{3,4})(?!\d)")),
    (
        "digits",
        "phone",
        re.compile(r"(?<![\d.-])(?P<n>(?:\+?1[-. ])?(?:\(\d{3}\)[ ]?|\d{3}[-. ])\d{3}[-. ]\d{4})(?![\d-])"),
    ),
    ("digits", "phone", re.compile(r"(?<![\d.])(?P<n>\+\d{1,3}(?:[- ]?\(?\d{1,4}\)?){2,5})(?![\d.])")),
    (
        "latin",
        "email",
        re.compile(r"(?<![A-Za-z\d._+-])(?P<n>[A-Za-z\d][A-Za-z\d._+-]*@[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)+)"),
    ),
    (
        "labels",
        "email",
        re.compile(r"(?:微信|QQ)[ \t]*(?:号码|号|id|ID)?[ \t]*[:：]?[ \t]*(?P<n>[A-Za-z\d][A-Za-z\d_-]{4,30})"),
    ),
    (
        "latin",
        "email",
        re.compile(r"(?<![A-Za-z])(?i:wechat|qq)(?i:[ ]id)?[ \t]*[:：][ \t]*(?P<n>[A-Za-z\d][A-Za-z\d_-]{4,30})"),
    ),
    (
        "place",
        "address",
        re.compile(rf"(?:{ADDRESS_ZH})[ \t]*[:：]?[ \t]*(?P<n>[{HAN}](?:(?!{NOT_PLACE})[{HAN}\dA-Za-z#()·-]){{2,60}})"),
    ),
    (
        "place",
        "address",
        re.compile(
            rf"(?P<n>[{HAN}]{{2,6}}(?:省|自治区|特别行政区|市)[{HAN}]{{1,8}}(?:市|区|县|旗|州)[{HAN}\dA-Za-z-]{{0,20}}"
            r"(?:路|街|道|巷|村|镇|乡|号|栋|幢|楼|室|单元|胡同|弄|小区|苑|花园)"
            rf"(?:[\dA-Za-z{HAN}-]{{0,16}}(?:号|栋|幢|楼|室|单元|层|座))?)"
        ),
    ),
    (
        "place",
        "address",
        re.compile(
            rf"(?P<n>[{HAN}]{{2,8}}(?:路|街|大道|巷|胡同|弄)\d{{1,5}}(?:弄\d{{1,4}})?号(?:院|楼)?"
            r"(?:\d{1,4}[号栋幢座楼]|\d{1,3}单元|\d{1,4}室|-\d{1,4})*)"
        ),
    ),
    (
        "place",
        "address",
        re.compile(
            rf"(?P<n>[{HAN}]{{2,6}}(?:小区|家园|花园|新村|公寓)\d{{1,4}}[号栋幢座楼](?:\d{{1,3}}单元)?(?:\d{{1,4}}室?)?)"
        ),
    ),
    (
        "latin",
        "address",
        re.compile(
            r"(?<![A-Za-z])(?i:(?:home |postal |mailing |street )?address)[ \t]*:[ \t]*"
            r"(?P<n>[^\n;。]{4,100}?)(?=[;\n]|\.(?:\s|$)|$)"
        ),
    ),
    (
        "latin",
        "address",
        re.compile(
            rf"(?<![\dA-Za-z.])(?P<n>\d{{1,5}}[A-Za-z]?[ ](?:[A-Z][A-Za-z']+\.?[ ]){{1,4}}(?:{WAY_EN})\b\.?"
            r"(?:,?[ ](?:Apt|Apartment|Unit|Suite|Flat)\.?[ ]?#?\w+)?(?:,[ ][A-Z][a-z]+(?:[ ][A-Z][a-z]+)?)?"
            r"(?:,?[ ][A-Z]{2}[ ]\d{5}(?:-\d{4})?|,?[ ][A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2})?)"
        ),
    ),
)
