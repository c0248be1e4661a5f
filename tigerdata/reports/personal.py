"""Removing direct personal data from report texts before anything is stored.

This finds names after a label, identity card, telephone and hospital record numbers. It is a safety net: a hospital
still has to hand out de-identified exports.
"""

import re

SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章云苏潘葛奚范彭郎鲁韦昌马苗凤花方"
    "俞任袁柳酆鲍史唐费廉岑薛雷贺倪汤滕殷罗毕郝邬安常乐于时傅皮卞齐康伍余元卜顾孟平黄和穆萧尹姚邵湛汪祁毛禹狄米贝明臧"
    "计伏成戴谈宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季麻强贾路娄危江童颜郭梅盛林刁钟徐邱骆高夏蔡田樊胡凌霍虞万支柯管卢莫经"
    "房裘缪干解应宗丁宣贲邓郁单杭洪包诸左石崔吉钮龚程嵇邢滑裴陆荣翁荀羊甄曲家封芮羿储靳汲邴糜松井段富巫乌焦巴弓牧隗山"
    "谷车侯宓蓬全郗班仰秋仲伊宫宁仇栾暴甘厉戎祖武符刘景詹束龙叶幸司韶郜黎蓟薄印宿白怀蒲邰从鄂索咸籍赖卓蔺屠蒙池乔阴胥"
)
END = r"(?=$|[\s，,。;；(（:：男女])"
PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("[NAME]", re.compile(r"(?<=姓名)\s*[:：]?\s*[一-鿿·]{2,4}?(?=$|[\s，,。;；(（]|男|女|性别|年龄)")),
    ("[NAME]", re.compile(rf"(?<=患者)\s*[:：]?\s*[{SURNAMES}][一-鿿]{{1,2}}{END}")),
    (
        "[NAME]",
        re.compile(
            r"(?:(?<=(?i:patient name))|(?<=\bName)|(?<=\bNAME))\s*[:：]\s*"
            r"[A-Z][A-Za-z'-]+(?:,?[ ][A-Z][A-Za-z'.-]*){0,2}"
        ),
    ),
    ("[NAME]", re.compile(r"\b(?:Mr|Mrs|Ms)\.?\s+[A-Z][a-z'-]+(?:\s[A-Z][a-z'-]+)?")),
    ("[ID]", re.compile(r"(?<![\dA-Za-z])\d{17}[\dXx](?![\dA-Za-z])")),
    ("[ID]", re.compile(r"(?<![\dA-Za-z])\d{3}-\d{2}-\d{4}(?![\dA-Za-z])")),
    ("[PHONE]", re.compile(r"(?<!\d)(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)")),
    ("[PHONE]", re.compile(r"(?<!\d)0\d{2,3}-\d{7,8}(?!\d)")),
    ("[PHONE]", re.compile(r"(?<!\d)\(?\d{3}\)?[- ]\d{3}-\d{4}(?!\d)")),
    ("[NUMBER]", re.compile(r"(?<=[院诊历案片查查]号)\s*[:：]?\s*[A-Za-z]{0,3}\d[\dA-Za-z-]{3,}")),
    (
        "[NUMBER]",
        re.compile(
            r"(?:(?<=\bMRN)|(?<=\bmrn)|(?<=(?i:medical record number)))\s*[:#：]?\s*[A-Za-z]{0,3}\d[\dA-Za-z-]{3,}"
        ),
    ),
)


def redact(text: str) -> tuple[str, int]:
    """Text with personal data replaced by [NAME], [ID], [PHONE] or [NUMBER], and how many were replaced."""
    count = 0
    for mark, pattern in PATTERNS:
        text, found = pattern.subn(mark, text)
        count += found
    return text, count
