"""Holds requests of ours against HubSpot's own description of its API.

    python3 hubspot_requests.py REQUESTS.ndjson

HubSpot generates its official client from its OpenAPI description, whose files are not licensed for
others' use; the client is (Apache 2.0). So the description is read back out of the client: paths,
methods and parameters out of what its methods call, bodies out of its models. openapi-core then
judges each request. Beyond what the description asks, members and parameters that it does not name
are faults too.
"""

import importlib
import inspect
import json
import re
import sys
from urllib.parse import parse_qsl

from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest

HOST = "https://api.hubapi.com"
PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "object": {},
}


class Description:
    """What the client knows of some objects of the CRM, as an OpenAPI document."""

    def __init__(self, objects):
        self.paths = {}
        self.schemas = {}
        for name in objects:
            self.models = importlib.import_module(f"hubspot.crm.{name}.models")
            for api in ("BasicApi", "BatchApi", "SearchApi"):
                api = getattr(importlib.import_module(f"hubspot.crm.{name}"), api)
                for method, function in inspect.getmembers(api, inspect.isfunction):
                    if method.endswith("_with_http_info"):
                        self.operation(function)

    def operation(self, function):
        source = inspect.getsource(function)
        path, method = re.search(r'call_api\(\s*"([^"]+)",\s*"([A-Z]+)"', source).groups()
        types = dict(re.findall(r":type (\w+): ([\w\[\], ]+?)(?:, optional)?\n", source))
        required = set(re.findall(r"Missing the required parameter `(\w+)`", source))

        def parameters(place, pattern):
            for wire, local in re.findall(pattern, source):
                yield {
                    "name": wire,
                    "in": place,
                    "required": place == "path" or local in required,
                    "schema": self.schema(types[local]),
                }

        operation = {"responses": {"default": {"description": "any"}}}
        operation["parameters"] = [
            *parameters("path", r'path_params\["(\w+)"\] = local_var_params\["(\w+)"\]'),
            *parameters("query", r'query_params\.append\(\("(\w+)", local_var_params\["(\w+)"\]'),
        ]
        body = re.search(r'body_params = local_var_params\["(\w+)"\]', source)
        if body:
            schema = self.schema(types[body[1]])
            operation["requestBody"] = {
                "required": body[1] in required,
                "content": {"application/json": {"schema": schema}},
            }
        self.paths.setdefault(path, {})[method.lower()] = operation

    def schema(self, kind):
        kind = kind.strip()
        if kind in PLAIN:
            return PLAIN[kind]
        if inner := re.fullmatch(r"list\[(.+)\]", kind):
            return {"type": "array", "items": self.schema(inner[1])}
        if inner := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
            return {"type": "object", "additionalProperties": self.schema(inner[1])}
        if kind not in self.schemas:
            self.schemas[kind] = {}
            self.schemas[kind] = self.model(getattr(self.models, kind))
        return {"$ref": f"#/components/schemas/{kind}"}

    def model(self, model):
        properties, required = {}, []
        for local, kind in model.openapi_types.items():
            wire = model.attribute_map[local]
            setter = inspect.getsource(getattr(model, local).fset)
            properties[wire] = self.schema(kind)
            if "must not be `None`" in setter:
                required.append(wire)
            if allowed := re.search(r"allowed_values = (\[[^\]]*\])", setter):
                values = json.loads(allowed[1].replace("None, ", ""))
                properties[wire] = {**properties[wire], "enum": values}
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def document(self):
        return {
            "openapi": "3.1.0",
            "info": {"title": "read out of hubspot-api-client", "version": "v3"},
            "servers": [{"url": HOST}],
            "paths": self.paths,
            "components": {"schemas": self.schemas},
        }

    def names(self, method, path):
        """The parameters in the query of a request."""
        for pattern, methods in self.paths.items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path) and method in methods:
                known = methods[method]["parameters"]
                return {name["name"] for name in known if name["in"] == "query"}
        return set()


def asked(row):
    return parse_qsl(row.get("query", ""), keep_blank_values=True)


def request(row):
    body = row.get("body")
    return MockRequest(
        HOST,
        row["method"].lower(),
        row["path"],
        args=asked(row),
        data=b"" if body is None else json.dumps(body).encode(),
        content_type="application/json",
    )


def faults(description, openapi, row):
    known = description.names(row["method"].lower(), row["path"])
    unknown = {name for name, _ in asked(row)} - known
    if unknown:
        return f"parameters it does not know: {sorted(unknown)}"
    try:
        openapi.validate_request(request(row))
    except OpenAPIError as fault:
        causes = getattr(fault.__cause__, "schema_errors", None) or [fault.__cause__ or fault]
        return "; ".join(str(getattr(cause, "message", cause)) for cause in causes)
    return None


def self_check(description, openapi):
    """Requests that must not pass: a judge who never objects proves nothing."""
    contacts = "/crm/v3/objects/contacts"
    for row in [
        {"method": "PUT", "path": contacts, "body": {}},
        {"method": "POST", "path": contacts + "/batch/save", "body": {"inputs": []}},
        {"method": "POST", "path": contacts, "body": {"associations": []}},
        {"method": "POST", "path": contacts, "body": {"properties": {"visits": 3}}},
        {"method": "POST", "path": contacts + "/batch/update", "body": {"inputs": [{"id": "1"}]}},
        {"method": "POST", "path": contacts + "/batch/archive", "body": {"inputs": [{"id": "1", "x": 1}]}},
        {"method": "GET", "path": contacts, "query": "archive=true"},
        {"method": "GET", "path": contacts, "query": "limit=many"},
    ]:
        assert faults(description, openapi, row), f"this passed: {row}"


def main():
    description = Description(["contacts", "companies", "deals"])
    openapi = OpenAPI.from_dict(description.document())
    self_check(description, openapi)
    with open(sys.argv[1], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert rows, "no requests"
    failed = 0
    for row in rows:
        if fault := faults(description, openapi, row):
            failed += 1
            print(f"  {row['method']} {row['path']}?{row['query']}: {fault}\n    {json.dumps(row['body'])}")
    kinds = {(row["method"], re.sub(r"/\d+", "", row["path"])) for row in rows}
    print(f"  hubspot requests: {len(rows)} of {len(kinds)} kinds, {failed} not as described")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
