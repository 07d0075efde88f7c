"""Judges our requests to Stripe, and what we take for Stripe's answers, by Stripe's own package.

    judge.py pages FOLDER    each request in the files of FOLDER is the one that the package makes for the same question,
                             each answer is an object that the package knows, and every type of event is asked for
    judge.py lists           the parameters of each list, as JSON
    judge.py read URL LIST.. what the package reads from a server, page by page, as JSON

Whatever is wrong is printed, one line each, and the exit code is 1. The package sends nothing but to URL.
"""

import importlib
import json
import pathlib
import re
import sys
from urllib.parse import parse_qsl, urlsplit

import stripe
from stripe._object_classes import OBJECT_CLASSES

KEY = "sk_test_not_a_real_key"
wrong = []


class Answers(stripe.HTTPClient):
    """Notes each request, and answers it from a file."""

    name = "answers"

    def __init__(self):
        super().__init__()
        self.asked = []
        self.next = None

    def request(self, method, url, headers, post_data=None, **_):
        self.asked.append((method.upper(), url, headers, post_data))
        status, answer = self.next
        return json.dumps(answer), status, {}

    def request_stream(self, *_, **__):
        raise NotImplementedError

    def close(self):
        pass


def question(method, url):
    """A request, however its lists are numbered."""
    parts = urlsplit(url)
    query = [(re.sub(r"\[\d+\]$", "[]", name), value) for name, value in parse_qsl(parts.query, True)]
    return method, parts.path, sorted(query)


def nested(query):
    """Parameters as a person gives them to the package."""
    made = {}
    for name, value in query:
        if name.endswith("[]"):
            made.setdefault(name[:-2], []).append(value)
        elif "[" in name:
            outer, inner = name.rstrip("]").split("[")
            made.setdefault(outer, {})[inner] = value
        else:
            made[name] = value
    return made


def unknown_fields(body):
    """Fields of an object that the package's class does not have."""
    place = OBJECT_CLASSES.get(body.get("object"))
    if place is None or body.get("deleted"):
        return []
    cls = getattr(importlib.import_module(place[0]), place[1])
    known = set()
    for base in cls.__mro__:
        known |= set(getattr(base, "__annotations__", {}))
    return sorted(set(body) - known)


def judge_answer(about, got, answer):
    if got.to_dict() != answer:
        wrong.append(f"{about}: the package reads another answer: {got.to_dict()} for {answer}")
    for body in answer["data"] if answer.get("object") == "list" else [answer]:
        inner = body.get("data", {}).get("object") if body.get("object") == "event" else None
        for one in filter(None, (body, inner)):
            if one.get("object") not in OBJECT_CLASSES:
                wrong.append(f"{about}: the package knows no object {one.get('object')}")
            for field in unknown_fields(one):
                wrong.append(f"{about}: {one['object']} has no field {field}")


def conversations(folder):
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        if path.name == "refusals.json":
            continue
        text = path.read_text()
        first = json.loads(text)
        yield path.name, first
        for words in first.get("also", []):
            other = text
            for old, new in sorted(words.items()):
                other = other.replace(old, new)
            yield path.name, json.loads(other)


def pages(folder):
    types = {}
    for name, conversation in conversations(folder):
        for exchange in conversation["exchanges"]:
            asked = exchange["asked"]
            method, url = asked["url"].split(" ", 1)
            query = [tuple(pair) for pair in asked.get("query", [])]
            headers = asked["headers"]
            about = f"{name}: {asked['url']}"
            answers = Answers()
            status = exchange.get("status", 200)
            answers.next = (status, exchange["answer"])
            client = stripe.StripeClient(
                headers["Authorization"].removeprefix("Bearer "),
                http_client=answers,
                stripe_version=headers["Stripe-Version"],
                stripe_account=headers.get("Stripe-Account"),
                max_network_retries=0,
            )
            place = urlsplit(url).path.removeprefix("/v1/").split("/")
            service = getattr(client.v1, place[0])
            try:
                if len(place) == 2:
                    got = service.retrieve(place[1])
                else:
                    got = service.list(nested(query))
                judge_answer(about, got, exchange["answer"])
                if status != 200:
                    wrong.append(f"{about}: the package takes {status} for an answer")
            except stripe.StripeError as error:
                if status == 200 or error.http_status != status:
                    wrong.append(f"{about}: the package refuses {status}: {error}")
            theirs_method, theirs_url, theirs_headers, body = answers.asked[0]
            ours = (method, urlsplit(url).path, sorted(query))
            if question(theirs_method, theirs_url) != ours or body:
                wrong.append(f"{about}: the package asks {question(theirs_method, theirs_url)}, we {ours}")
            for header in ("Authorization", "Stripe-Version", "Stripe-Account"):
                if headers.get(header) != theirs_headers.get(header):
                    wrong.append(f"{about}: {header} is {headers.get(header)}, not {theirs_headers.get(header)}")
            kinds = [value for name, value in query if name == "types[]"]
            if kinds:
                types[conversation["stream"]] = kinds
    events(types)


def events(types):
    """Each type of event about an object of ours is asked for, or named with a reason why not."""
    source = pathlib.Path(stripe.__file__).with_name("_event.py").read_text()
    block = re.search(r"type: Literal\[(.*?)\]", source, re.S).group(1)
    every = re.findall(r'"([^"]+)"', block)
    left_out = json.loads(pathlib.Path(__file__).with_name("events.json").read_text())
    # Where the type does not begin with the object's own word.
    words = {"charge.dispute": "dispute", "charge.refund": "refund", "customer.subscription": "subscription"}
    words |= {"customer.discount": "discount", "customer.source": "source", "customer.tax_id": "tax_id"}
    words |= {name: name for name in OBJECT_CLASSES}
    ours = {
        "charges": "charge", "refunds": "refund", "payouts": "payout", "disputes": "dispute", "invoices": "invoice",
        "payment_intents": "payment_intent", "subscriptions": "subscription", "products": "product", "prices": "price",
        "customers": "customer",
    }
    if sorted(types) != sorted(ours):
        wrong.append(f"files ask for the events of {sorted(types)}, not of {sorted(ours)}")
    for stream, kinds in types.items():
        if len(kinds) > 20:
            wrong.append(f"{stream}: more than 20 types of events")
        for kind in kinds:
            if kind not in every:
                wrong.append(f"{stream}: the package knows no event {kind}")
    judged = 0
    for kind in every:
        begins = [word for word in words if kind.startswith(word + ".")]
        about = words[max(begins, key=len)] if begins else None
        for stream, object_ in ours.items():
            if object_ != about:
                continue
            judged += 1
            if kind in types.get(stream, []) and kind in left_out:
                wrong.append(f"{kind} is asked for, and named as left out")
            if kind not in types.get(stream, []) and not left_out.get(kind):
                wrong.append(f"{stream}: {kind} is neither asked for nor named with a reason")
    for kind in left_out:
        if kind not in every:
            wrong.append(f"left out is {kind}, which the package does not know")
    if judged < 60:
        wrong.append(f"only {judged} types of events were judged")


def lists():
    """The parameters of each list: the annotations of the package's typed dictionaries."""
    found = {}
    for name, word in {
        "balance_transactions": "balance_transaction", "charges": "charge", "refunds": "refund", "payouts": "payout",
        "disputes": "dispute", "invoices": "invoice", "payment_intents": "payment_intent",
        "subscriptions": "subscription", "products": "product", "prices": "price", "customers": "customer",
        "events": "event",
    }.items():
        module = importlib.import_module(f"stripe.params._{word}_list_params")
        camel = "".join(part.title() for part in word.split("_"))
        own = getattr(module, f"{camel}ListParams")
        found[name] = sorted(set(own.__annotations__) - set(stripe.RequestOptions.__annotations__))
    print(json.dumps(found))


def read(url, names):
    client = stripe.StripeClient(KEY, base_addresses={"api": url}, max_network_retries=0)
    found = {}
    for name in names:
        service = getattr(client.v1, name)
        parameters = {"limit": 100}
        if name == "subscriptions":
            parameters["status"] = "all"
        found[name] = {}
        for one in service.list(parameters).auto_paging_iter():
            body = one.to_dict()
            judge_answer(name, one, body)
            found[name][one.id] = body
            again = service.retrieve(one.id).to_dict()
            if again != body:
                wrong.append(f"{name}: {one.id} is {again} when it is read alone, and {body} in the list")
        refusals = [{"limit": 101}, {"limit": 0}, {"starting_after": "none_1"}, {"updated": {"gte": 1}}, {"page": 2}]
        for refused in refusals:
            try:
                service.list(refused)
                wrong.append(f"{name}: {refused} is not refused")
            except stripe.InvalidRequestError as error:
                if error.http_status != 400:
                    wrong.append(f"{name}: {refused} is refused with {error.http_status}")
        try:
            service.retrieve("none_1")
            wrong.append(f"{name}: what is not there is found")
        except stripe.InvalidRequestError as error:
            if (error.http_status, error.code) != (404, "resource_missing"):
                wrong.append(f"{name}: what is not there is {error.http_status} {error.code}")
    print(json.dumps(found))


if sys.argv[1] == "pages":
    pages(sys.argv[2])
elif sys.argv[1] == "lists":
    lists()
else:
    read(sys.argv[2], sys.argv[3:])
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(bool(wrong))
