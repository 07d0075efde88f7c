"""Makes the workbooks of this folder that other packages write: openpyxl, xlsxwriter, odfpy and xlwt.

    pip install openpyxl xlsxwriter odfpy xlwt && python3 more.py
"""
import datetime
import pathlib

import openpyxl
import xlsxwriter
import xlwt
from odf.opendocument import OpenDocumentSpreadsheet
from odf.table import Table, TableCell, TableRow
from odf.text import P

here = pathlib.Path(__file__).parent
ERRORS = ["#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#GETTING_DATA", "#SPILL!", "#CONNECT!",
          "#BLOCKED!", "#UNKNOWN!", "#FIELD!", "#CALC!", "#BUSY!", "#PYTHON!", "#OF-TOMORROW!"]


def errors():
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["id", "value", "behind"])
    for number, error in enumerate(ERRORS, start=1):
        sheet.append([number, error, f"row {number}"])
        sheet.cell(number + 1, 2).data_type = "e"
    book.save(here / "errors_openpyxl.xlsx")


TIMES = [("PT13H45M30S", "13:45:30"), ("PT08H30M", "08:30:00"), ("P1DT2H0M0S", "26:00:00"), ("-PT00H10M00S", "-00:10:00"),
         ("PT100H00M05.25S", "100:00:05.25")]


def odf(name, sheets):
    book = OpenDocumentSpreadsheet()
    for title, rows in sheets:
        table = Table(name=title)
        for row in rows:
            line = TableRow()
            for cell in row:
                line.addElement(cell)
            table.addElement(line)
        book.spreadsheet.addElement(table)
    book.save(here / name)


def text(words):
    cell = TableCell(valuetype="string")
    cell.addElement(P(text=words))
    return cell


def times():
    rows = [[text("shift"), text("time")]]
    rows += [[text(f"s{at}"), TableCell(valuetype="time", timevalue=value)] for at, (value, _) in enumerate(TIMES)]
    odf("times_odfpy.ods", [("Times", rows)])
    book = xlsxwriter.Workbook(here / "times_xlsxwriter.xlsx")
    sheet = book.add_worksheet("Times")
    clock, amount = book.add_format({"num_format": "hh:mm:ss"}), book.add_format({"num_format": "[h]:mm:ss"})
    day = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    sheet.write_row(0, 0, ["shift", "time"])
    sheet.write_row(1, 0, ["s0"])
    sheet.write_datetime(1, 1, datetime.time(13, 45, 30), clock)
    sheet.write_datetime(2, 1, datetime.timedelta(hours=26), amount)
    sheet.write_datetime(3, 1, datetime.timedelta(hours=100, seconds=5), amount)
    sheet.write_number(4, 1, -10 / 1440, amount)
    sheet.write_datetime(5, 1, datetime.datetime(2026, 10, 13, 22, 30), day)
    for row in range(1, 6):
        sheet.write_string(row, 0, f"s{row - 1}")
    book.close()


def empty_first():
    book = openpyxl.Workbook()
    book.active.title = "Cover"
    sheet = book.create_sheet("Sales")
    sheet.append(["id", "amount"])
    sheet.append([1, 5])
    book.save(here / "empty_first.xlsx")
    number = TableCell(valuetype="float", value="1")
    odf("empty_first.ods", [("Cover", []), ("Sales", [[text("id"), text("amount")], [number, TableCell(valuetype="float", value="5")]])])
    book = xlwt.Workbook()
    book.add_sheet("Cover")
    sheet = book.add_sheet("Sales")
    for row, cells in enumerate([["id", "amount"], [1, 5]]):
        for column, cell in enumerate(cells):
            sheet.write(row, column, cell)
    book.save(str(here / "empty_first.xls"))


def beside():
    """A title over all columns, a bank's lines, a note beside the table, and two sheets with keys of their own."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(["Sales of October", None, None])
    sheet.merge_cells("A1:C1")
    sheet.append(["Order ID", "Day", "Amount"])
    sheet.append([1001, datetime.date(2026, 10, 13), 19.9])
    sheet.append([1002, datetime.date(2026, 10, 14), 5])
    sheet["E4"] = "late"
    other = book.create_sheet("Stock")
    other.append(["Shop", "Item", "Count"])
    other.append(["Nord", "tea", 5])
    other.append(["Nord", "cake", 7])
    book.save(here / "beside.xlsx")


errors()
times()
empty_first()
beside()
