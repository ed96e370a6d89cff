"""simple-salesforce, which nobody here wrote, against a simulated org.

    python3 salesforce_org.py https://localhost:9643

The org takes the token t-1. REQUESTS_CA_BUNDLE names its CA.
"""

import datetime
import sys

from simple_salesforce import (
    Salesforce,
    SalesforceMoreThanOneRecord,
    SalesforceResourceNotFound,
)

org = Salesforce(instance_url=sys.argv[1], session_id="t-1", version="62.0")


def checked(what):
    print(f"  simple-salesforce: {what}")


created = org.Contact.create({"LastName": "Lovelace", "External_Id__c": "c-1"})
assert created["success"], created
assert org.Contact.update(created["id"], {"Email": "ada@example.com"}) == 204
assert org.Contact.upsert("External_Id__c/c-2", {"LastName": "Hoper"}) == 201
assert org.Contact.upsert("External_Id__c/c-2", {"LastName": "Hopper"}) == 200
assert org.Contact.get(created["id"])["Email"] == "ada@example.com"
assert org.Contact.get_by_custom_id("External_Id__c", "c-2")["LastName"] == "Hopper"
checked("create, update, upsert by key, read by id and by key")

found = org.query_all("SELECT Id, LastName FROM Contact ORDER BY LastName")
assert [row["LastName"] for row in found["records"]] == ["Hopper", "Lovelace"], found
checked("search: a query with an order")

rows = [{"attributes": {"type": "Account"}, "Name": name} for name in ("A", "B")]
made = org.restful(
    "composite/sobjects", method="POST", json={"allOrNone": False, "records": rows}
)
assert [row["success"] for row in made] == [True, True], made
again = [
    {"attributes": {"type": "Account"}, "id": row["id"], "Industry": "Energy"}
    for row in made
]
changed = org.restful(
    "composite/sobjects", method="PATCH", json={"allOrNone": False, "records": again}
)
assert [row["success"] for row in changed] == [True, True], changed
ids = [row["id"] for row in made]
gone = org.restful(
    "composite/sobjects", method="DELETE", params={"ids": ",".join(ids)}
)
assert [row["success"] for row in gone] == [True, True], gone
checked("collections: create, update, delete")

assert org.Contact.delete(created["id"]) == 204
now = datetime.datetime.now(datetime.timezone.utc)
span = now - datetime.timedelta(minutes=5), now + datetime.timedelta(minutes=1)
deleted = org.Contact.deleted(*span)["deletedRecords"]
assert [row["id"] for row in deleted] == [created["id"]], deleted
assert created["id"] not in org.Contact.updated(*span)["ids"]
try:
    org.Contact.get(created["id"])
    raise AssertionError("a deleted record was read")
except SalesforceResourceNotFound:
    pass
checked("delete, and what was deleted and updated")

for _ in range(2):
    org.Lead.create({"LastName": "L", "Company": "C", "Email": "l@example.com"})
try:
    org.Lead.upsert("Email/l@example.com", {"Title": "t"})
    raise AssertionError("an ambiguous key was taken")
except SalesforceMoreThanOneRecord as several:
    assert len(several.content) == 2
checked("a key of two records")
usage = org.api_usage["api-usage"]
assert usage.used > 0 and usage.total == 100_000, usage
checked("usage told by each reply")
