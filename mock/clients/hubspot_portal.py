"""The official hubspot-api-client against a simulated portal.

    python3 hubspot_portal.py https://localhost:9644

REQUESTS_CA_BUNDLE names its CA.
"""

import os
import sys
import time

from hubspot import HubSpot
from hubspot.crm import contacts

url = sys.argv[1]


def at_mock(api):
    configuration = api.api_client.configuration
    configuration.host = url
    configuration.ssl_ca_cert = os.environ.get("REQUESTS_CA_BUNDLE")
    # Connections are made with what was configured when the client was.
    api.api_client.rest_client = type(api.api_client.rest_client)(configuration)
    return api


def checked(what):
    print(f"  hubspot-api-client: {what}")


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
checked("create, update, read by a unique property")

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
checked("batch upsert: new, known and refused rows")

ids = contacts.BatchReadInputSimplePublicObjectId(
    inputs=[{"id": made.id}], properties=["email"], properties_with_history=[]
)
known = batch.read(batch_read_input_simple_public_object_id=ids)
assert known.results[0].properties["email"] == "ada@example.com", known
created = batch.create(
    batch_input_simple_public_object_batch_input_for_create=contacts.BatchInputSimplePublicObjectBatchInputForCreate(
        inputs=[new({"external_id": f"c-{n}"}) for n in (4, 5)]
    )
)
ids = [{"id": row.id} for row in created.results]
changed = batch.update(
    batch_input_simple_public_object_batch_input=contacts.BatchInputSimplePublicObjectBatchInput(
        inputs=[row | {"properties": {"city": "Paris"}} for row in ids]
    )
)
assert {row.properties["city"] for row in changed.results} == {"Paris"}, changed
batch.archive(
    batch_input_simple_public_object_id=contacts.BatchInputSimplePublicObjectId(
        inputs=ids
    )
)
checked("batch create, read, update, archive")

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
checked("search, list with a page")

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
checked("archive, a taken address, what is not there")
