# ruff: noqa: E501 (a table of examples: one a line reads better)
"""Invented personal data, twenty pieces a kind and language, in the middle of report texts. Nobody real is in it."""

import random
from dataclasses import dataclass

BODY_ZH = [
    "左叶上极见一低回声实性结节，大小约12×8×7mm，边界不清，PSV 35.2cm/s，RI 0.65，C-TIRADS 4A类。",
    "甲状腺右叶厚约1.6cm，内见囊实性结节，大小约2.3*1.5cm，囊性成分约50%，TI-RADS 3级，随访3-6个月。",
    "峡部厚0.3cm，双侧叶见多个结节，大者位于左叶，约９×６mm，纵横比<1，距被膜0.2cm，血流Adler 2级。",
]
BODY_EN = [
    "Right lobe: 4.5 x 1.8 x 1.9 cm. A 1.2 x 0.7 x 0.7 cm hypoechoic solid nodule, TR4 (5 points), PSV 35 cm/s, 50% cystic.",
    "Isthmus 3 mm. Nodule 1: left mid lobe, 2.8 x 2.0 x 2.2 cm, ACR TI-RADS 2017 total points: 12, RI 0.65.",
    "There are 2 nodules > 1 cm; the larger measures 15 mm, EU-TIRADS 4, follow-up in 12 months.",
]
FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗".replace(" ", "")
GIVEN = "小明 丽华 建国 芳 志强 婷婷 秀英 伟 桂兰 俊杰 雪梅 磊 玉珍 海燕 子轩 敏 春生 晓东 淑芬 宏"
FIRST = "John Mary Robert Linda James Susan David Karen Peter Nancy Thomas Helen George Alice Frank Ruth Henry Clara Oscar Ivy"
LAST = "Smith O'Brien Johnson Garcia-Lopez Brown McDonald Miller Davis Wilson Moore Taylor White Harris Clark Lewis Hall Allen Young King Wright"


@dataclass(frozen=True)
class Planted:
    """A text, what was planted in it, and the clinical text around it, which must stay."""

    kind: str
    language: str
    text: str
    secret: str
    body: str


def identity_card(rng: random.Random) -> str:
    """A number of 18 characters whose last one is right (ISO 7064 MOD 11-2, GB 11643)."""
    digits = f"{rng.choice(['110101', '310104', '440106', '510107', '420102'])}"
    digits += f"{rng.randint(1940, 2005)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}{rng.randint(0, 999):03d}"
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
    return digits + "10X98765432"[sum(int(d) * w for d, w in zip(digits, weights, strict=True)) % 11]


def wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _zh(kind: str, k: int, rng: random.Random) -> tuple[str, str]:
    name = FAMILY[k % len(FAMILY)] + GIVEN.split()[k]
    mobile = f"1{rng.choice('3456789')}{rng.randint(10**8, 10**9 - 1)}"
    if kind == "name":
        double = ["欧阳", "司马", "上官", "诸葛"][k % 4] + GIVEN.split()[k]
        forms = [
            (f"姓名：{name} 性别：女 年龄：45岁", name),
            (f"患者{name}，女，45岁，", name),
            (f"检查医师：{name} ", name),
            (f"报告医生:{double}，审核已完成。", double),
            (f"{name}，男，52岁。", name),
            (f"请{name}主任会诊。", name),
            (f"姓名 {' '.join(name)} 男", " ".join(name)),
            (f"审核医师：{name}\n", name),
            (f"患者：{name}，", name),
            (f"记录者：{name}。", name),
        ]
        return forms[k % 10]
    if kind == "id_card":
        card = identity_card(rng)
        spaced = f"{card[:6]} {card[6:14]} {card[14:]}"
        forms = [
            (f"身份证号：{card}，", card),
            (f"身份证{card}", card),
            (f"证件号码: {card.lower()} ", card.lower()),
            (f"（{card}）", card),
            (f"身份证号码：{spaced}。", spaced),
            (f"ID {card}，", card),
            (wide(f"{card}") + "，", wide(card)),
            (f"证件：{card[:17]}{(int(card[16]) + 1) % 10}，", card[:17]),
            (f"公民身份号码{card}。", card),
            (f"{card}\n", card),
        ]
        return forms[k % 10]
    if kind == "phone":
        land, split = (
            f"0{rng.randint(10, 29)}-{rng.randint(10**7, 10**8 - 1)}",
            f"{mobile[:3]} {mobile[3:7]} {mobile[7:]}",
        )
        forms = [
            (f"电话：{mobile}，", mobile),
            (f"手机{mobile}。", mobile),
            (f"联系电话 {land}；", land),
            (f"联系{split}，", split),
            (f"+86 {mobile}，", mobile),
            (f"{mobile[:3]}-{mobile[3:7]}-{mobile[7:]}，", f"{mobile[3:7]}-{mobile[7:]}"),
            (f"（{land}）", land),
            (wide(mobile) + "。", wide(mobile)),
            (f"电话：({land[:3]}){land[4:]}，", land[4:]),
            (f"家属电话{land}转{rng.randint(100, 999)}，", land),
        ]
        return forms[k % 10]
    if kind == "number":
        code = f"{rng.choice(['', 'ZY', 'US', 'MZ-', 'A'])}{rng.randint(10**5, 10**9)}"
        label = [
            "住院号",
            "门诊号",
            "检查号",
            "病案号",
            "超声号",
            "影像号",
            "就诊卡号",
            "医保号",
            "登记号",
            "申请单号",
            "标本号",
            "病理号",
            "条码号",
            "流水号",
            "体检号",
            "报告编号",
            "病历号",
            "患者编号",
            "检查ID",
            "档案号",
        ][k]
        return (
            f"{label}{['：', ':', ' ', '：  ', ''][k % 5] if code[0].isdigit() or k % 5 != 4 else '：'}{code}，",
            code,
        )
    if kind == "email":
        box = f"{['zhang', 'li.ming', 'wang_fang', 'chen-hua'][k % 4]}{k}@{['163.com', 'qq.com', 'mail.example.cn', 'h.org'][k % 4]}"
        return [(f"邮箱：{box}，", box), (f"联系{box}。", box), (f"微信号：wx_{box[:5]}{k}99，", f"wx_{box[:5]}{k}99")][
            k % 3
        ]
    if kind == "address":
        number = rng.randint(1, 300)
        forms = [
            f"北京市海淀区中关村大街{number}号5号楼301室",
            f"上海市徐汇区漕溪北路{number}弄12号",
            f"广东省广州市天河区体育西路{number}号",
            f"四川省成都市武侯区人民南路四段{number}号",
            f"浙江省杭州市西湖区文三路{number}号2单元402室",
        ]
        where = forms[k % 5]
        return [
            (f"住址：{where}，", where),
            (f"家住{where}。", where),
            (f"地址 {where} ", where),
            (f"{where}，", where),
        ][k % 4]
    day = f"20{rng.randint(10, 25)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    y, m, d = day.split("-")
    chinese = f"{y}年{int(m)}月{int(d)}日"
    forms = [
        (f"检查日期：{day}，", day),
        (f"{chinese}复查，", chinese),
        (f"对比{y}/{int(m)}/{int(d)}片，", f"{y}/{int(m)}/{int(d)}"),
        (f"{y}.{m}.{d} 14:03 检查，", f"{y}.{m}.{d}"),
        (f"于{int(m)}月{int(d)}日手术，", f"{int(m)}月{int(d)}日"),
        (f"报告时间{y}{m}{d}，", f"{y}{m}{d}"),
        (f"{y}年{int(m)}月外院检查，", f"{y}年{int(m)}月"),
    ]
    return forms[k % 7]


def _en(kind: str, k: int, rng: random.Random) -> tuple[str, str]:
    first, last = FIRST.split()[k], LAST.split()[k]
    if kind == "name":
        forms = [
            (f"Patient Name: {first} {last}\n", last),
            (f"Mrs. {last} was seen. ", last),
            (f"Dictated by {first} {last}, MD. ", last),
            (f"Patient: {last}, {first}; ", last),
            (f"NAME: {last.upper()}, {first.upper()}\n", last.upper()),
            (f"Referring physician: Dr. {first} {last}. ", last),
            (f"{first} {last} is a 45-year-old woman. ", last),
            (f"I, {first} {last}, personally reviewed the images. ", last),
            (f"Sonographer: {first} Q. {last}. ", last),
            (f"Discussed with Dr. {last}. ", last),
        ]
        return forms[k % 10]
    if kind == "id_card":
        social = f"{rng.randint(100, 899)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"
        passport = f"{rng.choice('EGPK')}{rng.randint(10**7, 10**8 - 1)}"
        card = identity_card(rng)
        forms = [
            (f"SSN: {social}. ", social),
            (f"({social}) ", social),
            (f"Passport No. {passport}. ", passport),
            (f"National ID: {card}. ", card),
            (f"ID card {card}, ", card),
        ]
        return forms[k % 5]
    if kind == "phone":
        a, b, c = rng.randint(201, 989), rng.randint(201, 989), rng.randint(1000, 9999)
        forms = [f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"{a}.{b}.{c}", f"+1 {a} {b} {c}", f"+44 20 7946 {c}"]
        number = forms[k % 5]
        return [(f"Phone: {number}. ", number), (f"call {number}, ", number), (f"Results to {number}. ", number)][k % 3]
    if kind == "number":
        code = f"{rng.choice(['', 'A', 'US', 'H-'])}{rng.randint(10**5, 10**9)}"
        label = [
            "MRN",
            "MRN#",
            "Medical record number",
            "Accession number",
            "Accession No.",
            "Patient ID",
            "Exam ID",
            "Study ID",
            "Case no.",
            "Visit number",
            "Account number",
            "Specimen number",
            "Chart number",
            "Hospital number",
            "Admission number",
            "Order number",
            "Record no.",
            "MRN",
            "Accession",
            "Patient ID",
        ][k]
        return f"{label}{[': ', ' '][k % 2] if not label.endswith('#') else ': '}{code}. ", code
    if kind == "email":
        box = f"{first.lower()}.{last.lower().replace(chr(39), '')}{k}@{['example.com', 'mail.example.org'][k % 2]}"
        return [(f"Email: {box}, ", box), (f"Send to {box}. ", box)][k % 2]
    if kind == "address":
        street = f"{rng.randint(1, 9999)} {['Oak', 'Maple Hill', 'Saint James', 'Main'][k % 4]} {['Street', 'Rd', 'Avenue', 'Lane', 'Blvd'][k % 5]}"
        forms = [f"{street}, Springfield, IL 62704", street, f"{street}, Apt 4B", f"{street}, London, SW1A 1AA"]
        where = forms[k % 4]
        return [(f"Address: {where}\n", where), (f"Lives at {where}. ", where)][k % 2]
    y, m, d = rng.randint(2010, 2025), rng.randint(1, 12), rng.randint(13, 28)
    month = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ][m - 1]
    forms = [
        f"{month} {d}, {y}",
        f"{d} {month[:3]} {y}",
        f"{m:02d}/{d:02d}/{y}",
        f"{y}-{m:02d}-{d:02d}",
        f"{d}-{month[:3]}-{y}",
        f"{month[:3]}. {d}, {y}",
        f"{month} {y}",
    ]
    date = forms[k % 7]
    return [(f"Exam date: {date}. ", date), (f"Compared with {date}, ", date)][k % 2]


KINDS = ("name", "id_card", "phone", "number", "email", "address", "date")


def planted(count: int = 20) -> list[Planted]:
    """`count` pieces of each kind in Chinese and in English, at the head, in the middle or at the end of a text."""
    rng = random.Random(20260)
    found = []
    for language, make, bodies in (("zh", _zh, BODY_ZH), ("en", _en, BODY_EN)):
        for kind in KINDS:
            for k in range(count):
                piece, secret = make(kind, k, rng)
                body = bodies[k % 3]
                other = bodies[(k + 1) % 3]
                text = [piece + body, f"{other}{' ' if language == 'en' else ''}{piece}{body}", f"{body}\n{piece}"][
                    k % 3
                ]
                found.append(Planted(kind, language, text, secret, body))
    return found
