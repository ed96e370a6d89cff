"""simple-salesforce, which nobody here wrote, against a simulated org.

    python3 -m venv env && env/bin/pip install simple-salesforce
    syncline mock salesforce --listen 127.0.0.1:9643 --tls=ca.pem --token t-1 &
    env/bin/python mock/clients/salesforce.py localhost:9643 ca.pem
"""

import datetime
import os
import sys

from simple_salesforce import (
    Salesforce,
    SalesforceMoreThanOneRecord,
    SalesforceResourceNotFound,
)

address, ca = sys.argv[1:]
os.environ["REQUESTS_CA_BUNDLE"] = ca
org = Salesforce(instance_url=f"https://{address}", session_id="t-1", version="62.0")

created = org.Contact.create({"LastName": "Lovelace", "External_Id__c": "c-1"})
assert created["success"], created
assert org.Contact.update(created["id"], {"Email": "ada@example.com"}) == 204
assert org.Contact.upsert("External_Id__c/c-2", {"LastName": "Hoper"}) == 201
assert org.Contact.upsert("External_Id__c/c-2", {"LastName": "Hopper"}) == 200
assert org.Contact.get(created["id"])["Email"] == "ada@example.com"
assert org.Contact.get_by_custom_id("External_Id__c", "c-2")["LastName"] == "Hopper"

found = org.query_all("SELECT Id, LastName FROM Contact ORDER BY LastName")
assert [row["LastName"] for row in found["records"]] == ["Hopper", "Lovelace"], found
rows = [{"attributes": {"type": "Account"}, "Name": name} for name in ("A", "B")]
made = org.restful(
    "composite/sobjects", method="POST", json={"allOrNone": False, "records": rows}
)
assert [row["success"] for row in made] == [True, True], made

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

for _ in range(2):
    org.Lead.create({"LastName": "L", "Company": "C", "Email": "l@example.com"})
try:
    org.Lead.upsert("Email/l@example.com", {"Title": "t"})
    raise AssertionError("an ambiguous key was taken")
except SalesforceMoreThanOneRecord as several:
    assert len(several.content) == 2
usage = org.api_usage["api-usage"]
assert usage.used > 0 and usage.total == 100_000, usage
print("salesforce: as simple-salesforce expects")
