"""Makes the workbooks of this folder: by openpyxl, and by LibreOffice from what openpyxl wrote.

    pip install openpyxl && apt-get install libreoffice-calc-nogui && python3 make.py
"""
import datetime
import pathlib
import subprocess

import openpyxl
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.utils.datetime import CALENDAR_MAC_1904

here = pathlib.Path(__file__).parent
HEADINGS = ["Order ID", "Date", "When", "At", "Amount", "Count", "Paid", "Note", "Rate", "Long"]
ROWS = [
    ["00123", datetime.date(2026, 3, 4), datetime.datetime(2026, 3, 4, 5, 6, 7), datetime.time(5, 6, 7), 1234.56, 3,
     True, "plain", 0.125, 123456789012345],
    ["00124", datetime.date(1950, 2, 28), datetime.datetime(2026, 12, 31, 23, 59, 59), datetime.time(0, 0, 0), -0.1, 0,
     False, "Grüße, <b> & \"quotes\"\nnext line, 漢字 😀", 1, 999999999999999],
    ["00125", None, None, None, None, None, None, CellRichText("bold ", TextBlock(InlineFont(b=True), "part")), None, None],
]


def sales(book, formulas):
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(["Sales of March"])
    sheet.append([])
    sheet.append(HEADINGS + (["Double", "Broken", "Words"] if formulas else []))
    for number, row in enumerate(ROWS, start=4):
        more = [f"=F{number}*2", "=1/0", f'="no "&A{number}'] if formulas else []
        sheet.append(row + more)
        sheet.cell(number, 9).number_format = "0.0%"
        sheet.cell(number, 2).number_format = "yyyy-mm-dd"
        sheet.cell(number, 3).number_format = "dd/mm/yyyy hh:mm:ss"
        sheet.cell(number, 5).number_format = '#,##0.00 "days"'
        sheet.cell(number, 10).number_format = "0"
    sheet.row_dimensions[5].hidden = True
    sheet.column_dimensions["G"].hidden = True
    # Formats reach farther than values do.
    sheet.cell(5000, 3).number_format = "0.00"


def shops(book):
    sheet = book.create_sheet("Shops")
    sheet.append(["Region", "Shop", "Revenue"])
    for row in [["North", "Oslo", 1], [None, "Bergen", 2], ["South", "Roma", 3]]:
        sheet.append(row)
    sheet.merge_cells("A2:A3")
    hidden = book.create_sheet("Secret")
    hidden.append(["x"])
    hidden.append([1])
    hidden.sheet_state = "hidden"


def write(name, formulas, epoch=None):
    book = openpyxl.Workbook()
    if epoch:
        book.epoch = epoch
    sales(book, formulas)
    shops(book)
    book.save(here / name)


def convert(source, form, name):
    subprocess.run(["soffice", "--headless", "--convert-to", form, "--outdir", "/tmp/converted", str(here / source)], check=True)
    extension = form.split(":")[0]
    made = pathlib.Path("/tmp/converted") / (pathlib.Path(source).stem + "." + extension)
    (here / name).write_bytes(made.read_bytes())


write("openpyxl.xlsx", False)
write("openpyxl_1904.xlsx", False, CALENDAR_MAC_1904)
write("uncomputed.xlsx", True)
for form in ["xlsx", "ods", "xls:MS Excel 97"]:
    extension = form.split(":")[0]
    convert("uncomputed.xlsx", form, f"libreoffice.{extension}")
    convert("openpyxl_1904.xlsx", form, f"libreoffice_1904.{extension}")
