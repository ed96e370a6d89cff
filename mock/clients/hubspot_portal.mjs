// The official @hubspot/api-client against a simulated portal.
//
//     node hubspot_portal.mjs https://localhost:9644

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { Client } from "@hubspot/api-client";

const basePath = process.argv[2];
const checked = (what) => console.log(`  @hubspot/api-client: ${what}`);
const refused = (status) => (error) => error.code === status;

const { contacts, companies } = new Client({ accessToken: "pat-eu1-mock", basePath }).crm;
const { basicApi: basic, batchApi: batch, searchApi: search } = contacts;

const made = await basic.create({
  properties: { email: "ada@example.com", external_id: "c-1" },
  associations: [],
});
const twin = { properties: { email: "ADA@example.com" }, associations: [] };
await assert.rejects(basic.create(twin), refused(409));
checked("create, and one whose address is taken");

await basic.update(made.id, { properties: { firstname: "Ada" } });
const byKey = await basic.getById("c-1", ["firstname"], undefined, undefined, false, "external_id");
assert.deepEqual([byKey.id, byKey.properties.firstname], [made.id, "Ada"]);
assert.ok(byKey.updatedAt instanceof Date);
checked("update, read by a unique property");

const upsert = (key, properties) => ({
  id: key,
  idProperty: "external_id",
  objectWriteTraceId: key,
  properties,
});
const done = await batch.upsert({
  inputs: [upsert("c-1", { lastname: "L" }), upsert("c-2", { lastname: "H" }), upsert("c-3", { Bad: "x" })],
});
assert.deepEqual(done.results.map((row) => row._new).sort(), [false, true]);
assert.deepEqual(done.errors[0].context, { objectWriteTraceId: ["c-3"] });
checked("batch upsert: new, known and refused rows");

const created = await batch.create({
  inputs: [4, 5].map((n) => ({ properties: { external_id: `c-${n}` }, associations: [] })),
});
assert.equal(created.results.length, 2);
const ids = created.results.map(({ id }) => ({ id }));
await batch.update({ inputs: ids.map(({ id }) => ({ id, properties: { city: "Paris" } })) });
const known = await batch.read({
  idProperty: "external_id",
  inputs: ["c-4", "c-5", "c-99"].map((id) => ({ id })),
  properties: ["city"],
  propertiesWithHistory: [],
});
assert.deepEqual(known.results.map((row) => row.properties.city), ["Paris", "Paris"]);
assert.deepEqual(known.errors[0].context.ids, ["c-99"]);
checked("batch create, update, read with a key that is not there");

await pause(2_100); // The index follows two seconds later.
const found = await search.doSearch({
  filterGroups: [{ filters: [{ propertyName: "lastmodifieddate", operator: "GTE", value: "0" }] }],
  sorts: ["lastmodifieddate"],
  properties: ["email"],
  limit: 3,
  after: "0",
});
assert.deepEqual([found.total, found.results.length], [4, 3]);
assert.ok(found.paging.next.after);
const everyone = await contacts.getAll(undefined, undefined, ["external_id"]);
assert.equal(everyone.length, 4);
checked("search with a page, list of all");

await batch.archive({ inputs: ids });
await basic.archive(made.id);
await assert.rejects(basic.getById(made.id), refused(404));
const archived = await basic.getPage(10, undefined, undefined, undefined, undefined, true);
assert.equal(archived.results.length, 3);
checked("archive, alone and many; list of archived");

const company = await companies.basicApi.create({ properties: { name: "Analytical" }, associations: [] });
assert.equal((await companies.basicApi.getById(company.id, ["name"])).properties.name, "Analytical");
checked("another object");
