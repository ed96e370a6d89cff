"""The official hubspot-api-client against a simulated portal.

    python3 -m venv env && env/bin/pip install hubspot-api-client
    syncline mock hubspot --listen 127.0.0.1:9644 &
    env/bin/python mock/clients/hubspot.py 127.0.0.1:9644
"""

import sys
import time

# This file's own folder comes first on the path and has a module of the client's name.
sys.path.pop(0)

from hubspot import HubSpot
from hubspot.crm import contacts

address = sys.argv[1]


def at_mock(api):
    api.api_client.configuration.host = f"http://{address}"
    return api


client = HubSpot(access_token="pat-eu1-mock")
basic = at_mock(client.crm.contacts.basic_api)
batch = at_mock(client.crm.contacts.batch_api)
search = at_mock(client.crm.contacts.search_api)


def new(properties):
    return contacts.SimplePublicObjectInputForCreate(
        properties=properties, associations=[]
    )


def upsert(key, properties):
    return {
        "id": key,
        "idProperty": "external_id",
        "properties": properties,
        "objectWriteTraceId": key,
    }


made = basic.create(
    simple_public_object_input_for_create=new(
        {"email": "ada@example.com", "external_id": "c-1"}
    )
)
basic.update(
    contact_id=made.id,
    simple_public_object_input=contacts.SimplePublicObjectInput(
        properties={"firstname": "Ada"}
    ),
)
read = basic.get_by_id("c-1", id_property="external_id", properties=["firstname"])
assert (read.id, read.properties["firstname"]) == (made.id, "Ada"), read

rows = contacts.BatchInputSimplePublicObjectBatchInputUpsert(
    inputs=[
        upsert("c-1", {"lastname": "L"}),
        upsert("c-2", {"lastname": "H"}),
        upsert("c-3", {"Bad": "x"}),
    ]
)
done = batch.upsert(batch_input_simple_public_object_batch_input_upsert=rows)
assert sorted(row.new for row in done.results) == [False, True], done
assert done.errors[0].context == {"objectWriteTraceId": ["c-3"]}, done

ids = contacts.BatchReadInputSimplePublicObjectId(
    inputs=[{"id": made.id}], properties=["email"], properties_with_history=[]
)
known = batch.read(batch_read_input_simple_public_object_id=ids)
assert known.results[0].properties["email"] == "ada@example.com", known

# The index follows two seconds later.
time.sleep(2.1)
since = {"propertyName": "lastmodifieddate", "operator": "GTE", "value": "0"}
found = search.do_search(
    public_object_search_request=contacts.PublicObjectSearchRequest(
        filter_groups=[{"filters": [since]}],
        sorts=["lastmodifieddate"],
        properties=["email"],
        limit=100,
        after="0",
    )
)
assert found.total == 2, found
assert basic.get_page(limit=1).paging.next.after == made.id

for ask, status in [
    (
        lambda: basic.create(
            simple_public_object_input_for_create=new({"email": "ADA@example.com"})
        ),
        409,
    ),
    (lambda: basic.archive(made.id) or basic.get_by_id(made.id), 404),
]:
    try:
        ask()
        raise AssertionError(f"{status} was expected")
    except contacts.ApiException as refused:
        assert refused.status == status, refused
print("hubspot: as its own client expects")
