// jsforce, which nobody here wrote, against a simulated org.
//
//     node salesforce_org.mjs https://localhost:9643
//
// The org takes the token t-1, and the client app with the secret s-1.

import assert from "node:assert/strict";
import jsforce from "jsforce";

const instanceUrl = process.argv[2];
const checked = (what) => console.log(`  jsforce: ${what}`);
const refused = (code) => (error) => error.errorCode === code;

const org = new jsforce.Connection({ instanceUrl, accessToken: "t-1", version: "62.0" });
const contacts = org.sobject("Contact");

const ada = await contacts.create({ LastName: "Lovelace", External_Id__c: "c-1" });
assert.equal(ada.success, true);
await assert.rejects(contacts.create({ FirstName: "Nobody" }), refused("REQUIRED_FIELD_MISSING"));
checked("create, and a refused one");

assert.equal((await contacts.update({ Id: ada.id, Email: "ada@example.com" })).success, true);
assert.equal((await contacts.retrieve(ada.id)).Email, "ada@example.com");
checked("update, read");

const made = await contacts.upsert({ External_Id__c: "c-2", LastName: "Hoper" }, "External_Id__c");
assert.equal(made.created, true);
const again = await contacts.upsert({ External_Id__c: "c-2", LastName: "Hopper" }, "External_Id__c");
assert.deepEqual([again.created, again.id], [false, made.id]);
checked("upsert of a new and of a known key");

const rows = await contacts.create(
  [3, 4, 5].map((n) => ({ LastName: `N${n}`, External_Id__c: `c-${n}` })).concat({ FirstName: "x" }),
);
assert.deepEqual(rows.map((row) => row.success), [true, true, true, false]);
assert.equal(rows[3].errors[0].errorCode ?? rows[3].errors[0].statusCode, "REQUIRED_FIELD_MISSING");
const three = rows.slice(0, 3);
const changed = await contacts.update(three.map((row) => ({ Id: row.id, Title: "t" })));
assert.deepEqual(changed.map((row) => row.success), [true, true, true]);
const upserted = await contacts.upsert(
  [3, 9].map((n) => ({ External_Id__c: `c-${n}`, LastName: `U${n}` })),
  "External_Id__c",
);
assert.deepEqual(upserted.map((row) => row.created), [false, true]);
const read = await contacts.retrieve(three.map((row) => row.id));
assert.deepEqual(read.map((row) => [row.LastName, row.Title]), [["U3", "t"], ["N4", "t"], ["N5", "t"]]);
checked("collections: create with one bad row, update, upsert, read");

const found = await contacts.find({ External_Id__c: ["c-1", "c-2"] }, ["Id", "LastName"]).sort("LastName");
assert.deepEqual(found.map((row) => row.LastName), ["Hopper", "Lovelace"]);
const counted = await org.query("SELECT COUNT() FROM Contact WHERE Title = 't'");
assert.equal(counted.totalSize, 3);
const pages = await org.query("SELECT Id FROM Contact ORDER BY Id").maxFetch(100).run({ autoFetch: true });
assert.equal(pages.length ?? pages.records.length, 6);
checked("search: conditions, order, count");

assert.equal((await contacts.destroy(ada.id)).success, true);
await assert.rejects(contacts.retrieve(ada.id), refused("NOT_FOUND"));
const destroyed = await contacts.destroy(three.map((row) => row.id));
assert.deepEqual(destroyed.map((row) => row.success), [true, true, true]);
const span = [new Date(Date.now() - 300_000), new Date(Date.now() + 60_000)];
const { deletedRecords } = await contacts.deleted(...span);
assert.deepEqual(deletedRecords.map((row) => row.id).sort(), [ada.id, ...three.map((row) => row.id)].sort());
checked("delete, alone and many; list of what was deleted");

assert.ok(org.limitInfo.apiUsage.used > 0 && org.limitInfo.apiUsage.limit === 100_000);
checked("usage told by each reply");

const login = new jsforce.Connection({ instanceUrl, loginUrl: instanceUrl, version: "62.0" });
const client = { grant_type: "client_credentials", client_id: "app", client_secret: "s-1" };
await login.authorize(client);
assert.equal((await login.sobject("Contact").retrieve(made.id)).LastName, "Hopper");
await assert.rejects(login.authorize({ ...client, client_secret: "wrong" }), /invalid_client/);
const stranger = new jsforce.Connection({ instanceUrl, accessToken: "t-2", version: "62.0" });
await assert.rejects(stranger.sobject("Contact").retrieve(made.id), refused("INVALID_SESSION_ID"));
checked("a token by client credentials, a wrong secret, an unknown token");
