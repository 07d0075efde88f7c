"""Judges our requests to QuickBooks, and what we take for its answers and signatures, by python-quickbooks and by
Intuit's own package for OAuth.

    judge.py pages FOLDER    each request in the files of FOLDER is the one that the packages make for the same question,
                             and they read each answer
    judge.py read URL TOKEN  what the package reads from a server, entity by entity, as JSON
    judge.py signatures      reads questions as JSON from stdin: {"sign": BODY, "key": KEY} gives a signature, with
                             "signature" whether it is right

Whatever is wrong is printed, one line each, and the exit code is 1. The packages send nothing but to URL. The package
posts a query as text, we send it as a parameter: Intuit documents both.
"""

import base64
import hashlib
import hmac
import importlib
import json
import pathlib
import re
import sys
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import intuitlib.client
from intuitlib.client import AuthClient
from quickbooks import QuickBooks
from quickbooks.cdc import change_data_capture
from quickbooks.exceptions import QuickbooksException

TOKEN_URL = "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer"
wrong = []


class Came:
    """An answer, as requests gives it to the packages."""

    def __init__(self, status, answer):
        self.status_code = status
        self.text = json.dumps(answer)
        self.content = self.text.encode()
        self.headers = {}

    def json(self):
        return json.loads(self.text)


class Session:
    """Notes each request, and answers it from a file."""

    access_token = "token-1"

    def __init__(self, status, answer):
        self.asked = []
        self.came = Came(status, answer)

    def request(self, method, url, **more):
        self.asked.append((method, url, more))
        return self.came


def entity(name):
    return getattr(importlib.import_module(f"quickbooks.objects.{name.lower()}"), name)


def books(session, url, realm):
    made = QuickBooks(company_id=realm, minorversion=75)
    made.session = session
    made.sandbox = "sandbox" in url
    return made


def spaces(text):
    return re.sub(r"\s+", " ", text).strip()


# Fields of every record, and those of Intuit's documentation that the package's classes have not been given.
USUAL = {"domain", "sparse", "status", "MetaData", "Id", "SyncToken"}
DOCUMENTED = {"VendorCredit": {"CurrencyRef"}, "BillPayment": {"TxnDate"}}


def unknown_fields(cls, body):
    """Fields of a record that the package's class does not have. It keeps them, as it keeps everything."""
    return sorted(set(body) - set(vars(cls())) - USUAL - DOCUMENTED.get(cls.__name__, set()))


def judge_records(about, cls, records):
    for body in records:
        read = cls.from_json(body)
        kept = json.loads(read.to_json())
        for field, value in body.items():
            if not isinstance(value, (dict, list)) and kept.get(field) != value:
                wrong.append(f"{about}: the package reads {field} as {kept.get(field)}, not {value}")
        for field in unknown_fields(cls, body):
            wrong.append(f"{about}: {cls.__name__} has no field {field}")


def login(about, exchange):
    asked = exchange["asked"]
    method, url = asked["url"].split(" ", 1)
    credentials = base64.b64decode(asked["headers"]["Authorization"].removeprefix("Basic ")).decode()
    name, secret = credentials.split(":")
    document = dict.fromkeys(
        ["authorization_endpoint", "revocation_endpoint", "issuer", "jwks_uri", "userinfo_endpoint"], ""
    )
    document["token_endpoint"] = TOKEN_URL
    with mock.patch.object(intuitlib.client, "get_discovery_doc", return_value=document):
        auth = AuthClient(name, secret, "https://example.com", "production")
    sent = {}

    def request(method, url, **more):
        sent.update(method=method, url=url, **more)
        return Came(200, exchange["answer"])

    auth.request = request
    shown = dict(parse_qsl(asked["body"]))["refresh_token"]
    auth.refresh(refresh_token=shown)
    if (sent["method"], sent["url"], sent["data"]) != (method, url, asked["body"]):
        wrong.append(f"{about}: the package asks {sent}")
    for header in ("Authorization", "Accept", "Content-Type"):
        if sent["headers"].get(header) != asked["headers"].get(header):
            wrong.append(f"{about}: {header} is {asked['headers'].get(header)}, not {sent['headers'].get(header)}")
    for field in ("access_token", "refresh_token", "expires_in"):
        if getattr(auth, field) != exchange["answer"][field]:
            wrong.append(f"{about}: the package reads {field} as {getattr(auth, field)}")


def judge(about, exchange):
    asked, answer = exchange["asked"], exchange["answer"]
    method, url = asked["url"].split(" ", 1)
    parts = urlsplit(url)
    realm = parts.path.split("/")[3]
    query = dict(asked["query"])
    session = Session(200, answer)
    made = books(session, url, realm)
    if "entities" in query:
        cls = entity(query["entities"])
        change_data_capture([cls], query["changedSince"], qb=made)
        captured = answer["CDCResponse"][0]["QueryResponse"][0].get(query["entities"], [])
        judge_records(about, cls, captured)
        theirs = session.asked[0][2]["params"]
        ours = {"entities": query["entities"], "changedSince": query["changedSince"]}
    else:
        match = re.fullmatch(
            r"SELECT (?P<what>.+) FROM (?P<entity>\w+) WHERE (?P<where>.+?)"
            r"(?: ORDERBY (?P<order>.+) STARTPOSITION (?P<start>\d+) MAXRESULTS (?P<most>\d+))?",
            query["query"],
        )
        cls = entity(match["entity"])
        if match["what"] == "COUNT(*)":
            came = cls.count(match["where"], qb=made)
            if came != answer["QueryResponse"]["totalCount"]:
                wrong.append(f"{about}: the package counts {came}")
        else:
            came = cls.where(match["where"], match["order"], match["start"], match["most"], qb=made)
            judge_records(about, cls, answer["QueryResponse"].get(match["entity"], []))
            if len(came) != len(answer["QueryResponse"].get(match["entity"], [])):
                wrong.append(f"{about}: the package reads {len(came)} records")
        theirs = dict(session.asked[0][2]["params"], query=spaces(session.asked[0][2]["data"]))
        # Of items the package names one field that the star leaves out, where it asks for all of them.
        if match["entity"] == "Item" and match["what"] != "COUNT(*)":
            everything = Session(200, answer)
            cls.all(qb=books(everything, url, realm))
            what = re.match("SELECT (.+) FROM", everything.asked[0][2]["data"])[1]
            theirs["query"] = theirs["query"].replace("SELECT *", f"SELECT {what}", 1)
        ours = {"query": query["query"]}
    ours["minorversion"] = int(query["minorversion"])
    if theirs != ours:
        wrong.append(f"{about}: the package asks for {theirs}, we for {ours}")
    _, their_url, more = session.asked[0]
    if their_url != url:
        wrong.append(f"{about}: the package asks {their_url}")
    for header in ("Authorization", "Accept"):
        if more["headers"][header] != asked["headers"].get(header):
            wrong.append(f"{about}: {header} is {asked['headers'].get(header)}, not {more['headers'][header]}")


def pages(folder):
    judged = 0
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        if path.name == "refusals.json":
            refusals(json.loads(path.read_text()))
            continue
        text = path.read_text()
        first = json.loads(text)
        for words in [{}, *first.get("also", [])]:
            other = text
            for old, new in sorted(words.items()):
                other = other.replace(old, new)
            conversation = json.loads(other)
            for exchange in conversation["exchanges"]:
                about = f"{path.name}, {conversation['stream']}: {exchange['asked']['url']}"
                if exchange["asked"]["url"].endswith("/tokens/bearer"):
                    login(about, exchange)
                else:
                    judge(about, exchange)
                judged += 1
    if judged < 50:
        wrong.append(f"only {judged} requests were judged")


def refusals(all_of_them):
    """What is a refusal to us is one to the package."""
    for refusal in all_of_them:
        if not isinstance(refusal["answer"], dict):
            continue
        made = books(Session(refusal["status"], refusal["answer"]), "", "1")
        try:
            made.query("SELECT * FROM Invoice")
            if refusal["status"] == 200 and "Fault" in refusal["answer"]:
                wrong.append(f"the package reads {refusal['about']}")
        except QuickbooksException:
            pass


def read(url, token):
    import requests

    class Connected(requests.Session):
        access_token = token

    found = {}
    for name in sys.argv[4:]:
        cls, start, bodies = entity(name), 1, []
        session = Connected()
        session.trust_env = False
        session.hooks["response"].append(lambda got, *_, **__: bodies.append(got.json()))

        def as_get(method, url, headers=None, params=None, data=None, ask=session.request):
            # The same question as a parameter.
            headers = {key: value for key, value in headers.items() if key != "Content-Type"}
            return ask("GET", url, headers=headers, params=dict(params, query=spaces(data)))

        session.request = as_get
        made = QuickBooks(company_id="9130347", minorversion=75)
        made.session, made.api_url_v3 = session, url + "/v3"
        where = "MetaData.LastUpdatedTime >= '2000-01-01T00:00:00Z' AND MetaData.LastUpdatedTime <= '2100-01-01T00:00:00Z'"
        if name in ("Item", "Customer", "Vendor", "Account"):
            where = "Active IN (true, false) AND " + where
        found[name] = []
        while True:
            bodies.clear()
            came = cls.where(where, "MetaData.LastUpdatedTime ASC", start, 1000, qb=made)
            records = bodies[0]["QueryResponse"].get(name, [])
            judge_records(name, cls, records)
            if len(came) != len(records):
                wrong.append(f"{name}: the package reads {len(came)} of {len(records)}")
            found[name] += records
            if not came:
                break
            start += len(came)
        if cls.count(where, qb=made) != len(found[name]):
            wrong.append(f"{name}: the count is another than what came")
    print(json.dumps(found))


def signatures():
    judging = QuickBooks(minorversion=75)
    for line in sys.stdin:
        asked = json.loads(line)
        ours = hmac.new(asked["key"].encode(), asked["sign"].encode(), hashlib.sha256).digest()
        signature = asked.get("signature", base64.b64encode(ours).decode())
        try:
            is_right = judging.validate_webhook_signature(asked["sign"], signature, asked["key"])
        except ValueError:
            is_right = False
        print(json.dumps({"signature": signature, "right": is_right}), flush=True)


if sys.argv[1] == "pages":
    pages(sys.argv[2])
elif sys.argv[1] == "signatures":
    signatures()
else:
    read(sys.argv[2], sys.argv[3])
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(bool(wrong))
