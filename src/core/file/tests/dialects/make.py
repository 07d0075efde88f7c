"""Makes python.json: random tables, written in random dialects by Python's csv and by pandas.

    pip install pandas && python3 make.py
"""
import base64
import csv
import io
import json
import pathlib
import random

import pandas

here = pathlib.Path(__file__).parent
random.seed(21)
WORDS = ["tea", "Süd", "O'Neil", "a b", 'say "x"', "semi;colon", "com,ma", "pi|pe", "tab\there", "two\nlines", "100%", "-", "x" * 40, "naïve", "12 kg"]
HEADINGS = ["Datum", "Order ID", "Betrag (EUR)", "shop", "Größe", "Notiz", "qty", "E-Mail", "Land/Region", "SKU"]


def amount(decimal):
    number = random.randint(-500000, 500000) / 100
    text = f"{number:,.2f}" if random.random() < 0.5 else f"{number:.2f}"
    return text.replace(",", "_").replace(".", decimal).replace("_", "." if decimal == "," else ",")


def column(kind, decimal, simple):
    if kind == "id":
        return str(random.randint(1, 99999))
    if kind == "day":
        return random.choice(["%d.%02d.2026", "%d/%02d/2026", "2026-%02d-%02d"]) % (random.randint(1, 12), random.randint(1, 12))
    if kind == "amount":
        return amount(decimal)
    words = [word for word in WORDS if word.isalnum()] if simple else WORDS
    return random.choice(words + [""])


def table():
    decimal = random.choice([".", ","])
    width = random.randint(2, 7)
    headings = random.sample(HEADINGS, width)
    kinds = ["id"] + [random.choice(["id", "day", "amount", "text", "text"]) for _ in range(width - 1)]
    random.shuffle(kinds)
    rows = [[column(kind, decimal, False) for kind in kinds] for _ in range(random.randint(2, 9))]
    return headings, rows


def encoded(text, config):
    encodings = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"]
    encoding = random.choice(encodings)
    if encoding == "cp1252":
        config["encoding"] = "windows-1252"
    return text.encode(encoding)


def above(headings, delimiter, end):
    """What a bank puts above a table: fewer cells in each line than the table has."""
    if len(headings) < 3 or random.random() < 0.5:
        return ""
    lines = ["Umsatzanzeige", f"Konto:{delimiter}DE12 3456", f"Zeitraum:{delimiter}01.10.2026 - 31.10.2026", f"Inhaber{delimiter}Ada", ""]
    return end.join(random.sample(lines, random.randint(1, 5))) + end


cases = []
for _ in range(100):
    headings, rows = table()
    delimiter = random.choice(",;\t|")
    end = random.choice(["\r\n", "\n"])
    quoting = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE])
    config = {}
    options = {}
    if quoting == csv.QUOTE_NONE or random.random() < 0.2:
        config["escape"] = options["escapechar"] = "\\"
        options["doublequote"] = False
    out = io.StringIO()
    try:
        writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting, **options)
        writer.writerow(headings)
        writer.writerows(rows)
    except csv.Error:
        continue
    if quoting == csv.QUOTE_NONE:
        config["quote"] = False
    text = above(headings, delimiter, end) + out.getvalue()
    content = encoded(text, config)
    expected = [dict(zip(headings, row)) for row in rows]
    cases.append({"by": "csv", "config": config, "content": base64.b64encode(content).decode(), "rows": expected})
for _ in range(30):
    headings, rows = table()
    frame = pandas.DataFrame(rows, columns=headings)
    config = {}
    has_index = random.random() < 0.5
    text = frame.to_csv(None, sep=random.choice(",;\t|"), index=has_index, lineterminator="\n")
    expected = [dict(zip((["column_1"] if has_index else []) + headings, ([str(at)] if has_index else []) + row)) for at, row in enumerate(rows)]
    content = encoded(text, config)
    cases.append({"by": "pandas", "config": config, "content": base64.b64encode(content).decode(), "rows": expected})
    records = frame.to_json(None, orient="records", indent=random.choice([None, 2]), lines=False)
    cases.append({"by": "pandas as JSON", "name": "x.json", "config": {}, "content": base64.b64encode(records.encode()).decode(),
                  "rows": [dict(zip(headings, row)) for row in rows]})
lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
(here / "python.json").write_text(f"[\n{lines}\n]\n")
