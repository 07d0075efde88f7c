"""Asks a server on this machine as the package simple-salesforce does, which people use for Salesforce.

Reads questions as JSON from stdin, one a line, and answers each with a line.

    {"query": SOQL, "base": URL, "token": TOKEN}     the ids of all rows, and the requests that were sent for them
    {"describe": OBJECT, "base": URL, "token": TOKEN}
    {"login": {"username": U, "password": P, "security_token": T}}     what is sent for the legacy login
"""

import json
import sys
from unittest import mock
from urllib.parse import urlsplit

import requests
import simple_salesforce
from simple_salesforce import Salesforce
from simple_salesforce.login import SalesforceLogin

VERSION = "64.0"


def opened(base, token):
    """The package speaks https only: what it sends to its instance goes to the server here."""
    sent = []
    session = requests.Session()
    send = session.send

    def here(request, **options):
        sent.append({
            "method": request.method,
            "path": request.path_url,
            "authorization": request.headers.get("Authorization"),
        })
        request.url = base + request.path_url
        return send(request, **options)

    session.send = here
    host = urlsplit(base).netloc
    return Salesforce(instance=host, session_id=token, version=VERSION, session=session), sent


def query(asked):
    salesforce, sent = opened(asked["base"], asked["token"])
    rows = salesforce.query_all(asked["query"], include_deleted=True)
    return {
        "ids": [row["Id"] for row in rows["records"]],
        "total": rows["totalSize"],
        "deleted": [row["Id"] for row in rows["records"] if row.get("IsDeleted")],
        "sent": sent,
    }


def describe(asked):
    salesforce, sent = opened(asked["base"], asked["token"])
    fields = getattr(salesforce, asked["describe"]).describe()["fields"]
    return {"fields": [field["name"] for field in fields], "sent": sent}


def login(asked):
    """The body that the package sends for the legacy login."""
    with mock.patch.object(simple_salesforce.login, "soap_login", return_value=("x", "y")) as soap:
        SalesforceLogin(
            username=asked["login"]["username"],
            password=asked["login"]["password"],
            security_token=asked["login"]["security_token"],
            sf_version=VERSION,
        )
    return {"url": soap.call_args.args[0], "body": soap.call_args.args[1], "headers": soap.call_args.args[2]}


for line in sys.stdin:
    asked = json.loads(line)
    try:
        if "query" in asked:
            answer = query(asked)
        elif "describe" in asked:
            answer = describe(asked)
        else:
            answer = login(asked)
    except simple_salesforce.exceptions.SalesforceError as refusal:
        answer = {"refused": type(refusal).__name__, "status": refusal.status}
    print(json.dumps(answer), flush=True)
