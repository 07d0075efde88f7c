"""Signs webhooks, and judges how they are signed, by Stripe's own package.

Reads questions as JSON from stdin, one a line, and answers each with a line. The package sends nothing by this.

    {"sign": BODY, "secrets": [SECRET, ...], "at": SECONDS}                    the value of Stripe-Signature
    {"judge": BODY, "header": VALUE, "secret": SECRET}                         the event's id
"""

import json
import sys

import stripe


def sign(body, secrets, at):
    # As Stripe does while a secret is rolled: one signature for each of them.
    signature = stripe.WebhookSignature._compute_signature
    signatures = [f"v1={signature(f'{at}.{body}', secret)}" for secret in secrets]
    header = ",".join([f"t={at}", *signatures])
    for secret in secrets:
        stripe.Webhook.construct_event(body, header, secret, tolerance=None)
    return header


def judge(body, header, secret):
    return stripe.Webhook.construct_event(body, header, secret).id


for line in sys.stdin:
    asked = json.loads(line)
    try:
        if "sign" in asked:
            answer = {"header": sign(asked["sign"], asked["secrets"], asked["at"])}
        else:
            answer = {"id": judge(asked["judge"], asked["header"], asked["secret"])}
    except stripe.SignatureVerificationError as refusal:
        answer = {"refused": str(refusal)}
    except ValueError:
        # What is signed, and no JSON.
        answer = {"unreadable": True}
    print(json.dumps(answer), flush=True)
