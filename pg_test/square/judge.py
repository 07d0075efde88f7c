"""Judges our requests to Square, and what we take for Square's answers and signatures, by Square's own package.

    judge.py pages FOLDER    each request in the files of FOLDER is the one that the package makes for the same question,
                             and the package's models validate each answer and know each of its fields and words
    judge.py endpoints       what each request may say, as JSON
    judge.py read URL        what the package reads from a server, page by page, as JSON
    judge.py signatures      reads questions as JSON from stdin: {"sign": BODY, "key": KEY, "url": URL} gives a signature,
                             with "signature" whether it is right

Whatever is wrong is printed, one line each, and the exit code is 1. The package sends nothing but to URL.
"""

import base64
import hashlib
import hmac
import importlib
import inspect
import json
import pathlib
import re
import sys
import typing
from urllib.parse import parse_qsl, urlsplit

import httpx
import pydantic
from square import Square
from square.core.api_error import ApiError
from square.utils.webhooks_helper import verify_signature

VERSION = "2026-09-16"
TOKEN = "not_a_real_token"
wrong = []

# The package's method for each address, its model of the answer, and where records lie in it.
CALLS = {
    "GET /v2/locations": (lambda c: c.locations.list, "ListLocationsResponse", "locations"),
    "GET /v2/payments": (lambda c: c.payments.list, "ListPaymentsResponse", "payments"),
    "GET /v2/refunds": (lambda c: c.refunds.list, "ListPaymentRefundsResponse", "refunds"),
    "GET /v2/payouts": (lambda c: c.payouts.list, "ListPayoutsResponse", "payouts"),
    "GET /v2/customers": (lambda c: c.customers.list, "ListCustomersResponse", "customers"),
    "POST /v2/orders/search": (lambda c: c.orders.search, "SearchOrdersResponse", "orders"),
    "POST /v2/inventory/counts/batch-retrieve": (
        lambda c: c.inventory.batch_get_counts,
        "BatchGetInventoryCountsResponse",
        "counts",
    ),
    "POST /v2/team-members/search": (lambda c: c.team_members.search, "SearchTeamMembersResponse", "team_members"),
    "POST /v2/labor/timecards/search": (lambda c: c.labor.search_timecards, "SearchTimecardsResponse", "timecards"),
    "POST /v2/catalog/search": (lambda c: c.catalog.search, "SearchCatalogObjectsResponse", "objects"),
    "POST /oauth2/token": (lambda c: c.o_auth.obtain_token, "ObtainTokenResponse", None),
}


def client(handler=None, url="https://connect.squareup.com", token=TOKEN):
    transport = httpx.MockTransport(handler) if handler else None
    return Square(
        token=token,
        version=VERSION,
        base_url=url,
        httpx_client=httpx.Client(transport=transport, trust_env=False),
    )


def words(annotation):
    """The words that a field may hold: the package writes Union[Literal[...], Any]."""
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    found = set()
    for part in typing.get_args(annotation):
        found |= words(part) if typing.get_origin(part) in (typing.Literal, typing.Union) else set()
    return found


def inspect_model(about, model):
    for field in model.model_extra or {}:
        wrong.append(f"{about}: {type(model).__name__} has no field {field}")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name, None)
        known = words(field.annotation)
        if known and isinstance(value, str) and value not in known:
            wrong.append(f"{about}: {type(model).__name__}.{name} may not be {value}")
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, pydantic.BaseModel):
                inspect_model(f"{about}.{name}", inner)


def of_types(name):
    """A model of the package, by its name: each has a module of its own."""
    module = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return getattr(importlib.import_module(f"square.types.{module}"), name)


def judge_answer(about, model, answer):
    try:
        read = of_types(model).model_validate(answer)
    except pydantic.ValidationError as error:
        wrong.append(f"{about}: {error}")
        return
    inspect_model(about, read)
    kept = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if kept != answer:
        wrong.append(f"{about}: the package keeps {kept} of {answer}")


def known_fields(method):
    own = set(inspect.signature(method).parameters)
    return sorted(own - {"request_options"})


def judge_fields(about, value, annotation):
    """Whether a body has no other fields than the package's typed dictionaries."""
    if typing.get_origin(annotation) in (typing.Union, list, typing.Sequence) or str(annotation).startswith("typing"):
        for part in typing.get_args(annotation):
            for inner in value if isinstance(value, list) else [value]:
                judge_fields(about, inner, part)
        return
    if not (typing.is_typeddict(annotation) and isinstance(value, dict)):
        return
    hints = typing.get_type_hints(annotation, include_extras=False)
    for field, inner in value.items():
        if field not in hints:
            wrong.append(f"{about}: {annotation.__name__} has no field {field}")
        else:
            judge_fields(f"{about}.{field}", inner, hints[field])


def pages(folder):
    judged = 0
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        if path.name == "refusals.json":
            continue
        for exchange in json.loads(path.read_text())["exchanges"]:
            asked = exchange["asked"]
            about = f"{path.name}: {asked['url']}"
            came = []

            def answer(request, exchange=exchange, came=came):
                came.append(request)
                return httpx.Response(exchange.get("status", 200), json=exchange["answer"])

            method, url = asked["url"].split(" ", 1)
            call, model, _ = CALLS[f"{method} {urlsplit(url).path}"]
            headers = asked["headers"]
            token = headers.get("Authorization", "Bearer " + TOKEN).removeprefix("Bearer ")
            ours = dict(asked.get("query") or asked.get("body") or {})
            given = {name: int(value) if name == "limit" else value for name, value in ours.items()}
            function = call(client(answer, token=token))
            unknown = sorted(set(given) - set(known_fields(function)))
            if unknown:
                wrong.append(f"{about}: the package has no {unknown}")
                continue
            hints = typing.get_type_hints(function, vars(inspect.getmodule(function)))
            for name, value in given.items():
                judge_fields(f"{about}: {name}", value, hints.get(name))
            function(**given)
            theirs = came[0]
            parts = urlsplit(str(theirs.url))
            if (theirs.method, parts.path) != (method, urlsplit(url).path):
                wrong.append(f"{about}: the package asks {theirs.method} {parts.path}")
            query = dict(parse_qsl(parts.query, True))
            body = json.loads(theirs.content) if theirs.content else {}
            if (query or body) != ours:
                wrong.append(f"{about}: the package asks for {query or body}, we for {ours}")
            for header in ("Authorization", "Square-Version", "Content-Type"):
                # The package shows its token even where the body says who asks.
                mine, other = headers.get(header), theirs.headers.get(header)
                if mine is not None and mine != other:
                    wrong.append(f"{about}: {header} is {mine}, not {other}")
            judge_answer(about, model, exchange["answer"])
            judged += 1
    if judged < 20:
        wrong.append(f"only {judged} requests were judged")


def read(url):
    connected = client(url=url)
    found = {}
    places = [place.id for place in connected.locations.list().locations]
    year = {"begin_time": "2009-01-01T00:00:00Z"}
    ever = {"start_at": "2009-01-01T00:00:00Z", "end_at": "2100-01-01T00:00:00Z"}
    changed = dict(
        year,
        updated_at_begin_time=ever["start_at"],
        updated_at_end_time=ever["end_at"],
        sort_field="UPDATED_AT",
        sort_order="ASC",
        limit=100,
    )
    orders = {
        "filter": {"date_time_filter": {"updated_at": ever}},
        "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
    }
    hours = {"sort": {"field": "CREATED_AT", "order": "ASC"}}
    questions = {
        "GET /v2/locations": [{}],
        "GET /v2/payments": [dict(changed, location_id=place) for place in places],
        "GET /v2/refunds": [changed],
        "GET /v2/payouts": [dict(year, end_time=ever["end_at"], location_id=place) for place in places],
        "GET /v2/customers": [{"limit": 100, "sort_field": "CREATED_AT"}],
        "POST /v2/orders/search": [
            {"location_ids": places[i : i + 10], "query": orders, "limit": 500} for i in range(0, len(places), 10)
        ],
        "POST /v2/inventory/counts/batch-retrieve": [{}],
        "POST /v2/team-members/search": [{}],
        "POST /v2/labor/timecards/search": [{"query": hours}],
        "POST /v2/catalog/search": [{"object_types": ["ITEM", "ITEM_VARIATION", "CATEGORY", "TAX", "DISCOUNT"]}],
    }
    bodies = []

    def note(response):
        response.read()
        bodies.append(response.json())

    connected = Square(
        token=TOKEN,
        version=VERSION,
        base_url=url,
        httpx_client=httpx.Client(event_hooks={"response": [note]}, trust_env=False),
    )
    for place, asked in questions.items():
        call, model, records = CALLS[place]
        found[records] = []
        for question in asked:
            cursor = None
            while True:
                bodies.clear()
                more = {"cursor": cursor} if cursor else {}
                call(connected)(**question, **more)
                body = bodies[0]
                judge_answer(place, model, body)
                found[records] += body.get(records, [])
                cursor = body.get("cursor")
                if not cursor:
                    break
    refusals = [
        (lambda: connected.customers.list(limit=101), 400, "VALUE_TOO_HIGH"),
        (lambda: connected.customers.list(limit=100, cursor="none", sort_field="CREATED_AT"), 400, "INVALID_CURSOR"),
        (lambda: connected.labor.search_timecards(query=hours, cursor="none"), 400, "INVALID_CURSOR"),
        (lambda: client(url=url, token="another").customers.list(), 401, "UNAUTHORIZED"),
    ]
    for ask, status, code in refusals:
        try:
            ask()
            wrong.append(f"{code} is not refused")
        except ApiError as error:
            if (error.status_code, error.errors[0].code) != (status, code):
                wrong.append(f"{code} is refused with {error.status_code} {error.errors}")
            known = typing.get_args(typing.get_args(of_types("ErrorCode"))[0])
            if code not in known:
                wrong.append(f"the package knows no error {code}")
    print(json.dumps(found))


def signatures():
    for line in sys.stdin:
        asked = json.loads(line)
        body, key, url = asked["sign"], asked["key"], asked["url"]
        ours = hmac.new(key.encode(), (url + body).encode(), hashlib.sha256).digest()
        signature = asked.get("signature", base64.b64encode(ours).decode())
        is_right = verify_signature(
            request_body=body, signature_header=signature, signature_key=key, notification_url=url
        )
        print(json.dumps({"signature": signature, "right": is_right}), flush=True)


if sys.argv[1] == "pages":
    pages(sys.argv[2])
elif sys.argv[1] == "endpoints":
    made = client(lambda request: httpx.Response(200, json={}))
    calls = {place: call for place, (call, _, records) in CALLS.items() if records}
    print(json.dumps({place.split(" ")[1]: known_fields(call(made)) for place, call in calls.items()}))
elif sys.argv[1] == "signatures":
    signatures()
else:
    read(sys.argv[2])
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(bool(wrong))
