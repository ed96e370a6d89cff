//! The two simulated accounts: what they take, under which names, and at which rate.

use serde_json::{Map, Value, json};

/// A simulated provider account.
#[derive(Debug)]
pub(super) struct AccountPlan {
    /// Its name in the configuration.
    pub(super) name: &'static str,
    /// Limits as the simulated account enforces them: calls, and the window's milliseconds.
    pub(super) limits: &'static [(u32, u64)],
    /// What it takes.
    pub(super) objects: &'static [ObjectPlan],
}

/// How one of System A's objects looks at an account.
#[derive(Debug)]
pub(super) struct ObjectPlan {
    pub(super) local: &'static str,
    pub(super) remote: &'static str,
    fields: &'static [FieldPlan],
}

#[derive(Debug)]
struct FieldPlan {
    local: &'static str,
    remote: &'static str,
    change: Change,
}

#[derive(Debug)]
enum Change {
    None,
    TrimLowercase,
    Values(&'static [(&'static str, &'static str)]),
}

/// A CRM that takes everything, and a mailing service that takes contacts. Their limits are in
/// the range that real ones publish for small plans, scaled so that a run of 30 s meets them.
pub(super) const ACCOUNTS: [AccountPlan; 2] = [
    AccountPlan {
        name: "crm",
        limits: &[(100, 1_000), (4_000, 60_000)],
        objects: &[
            ObjectPlan {
                local: "account",
                remote: "Account",
                fields: &[
                    renamed("name", "Name"),
                    cleaned("domain", "Website"),
                    translated(
                        "tier",
                        "Tier__c",
                        &[("free", "F"), ("pro", "P"), ("enterprise", "E")],
                    ),
                    renamed("employees", "NumberOfEmployees"),
                ],
            },
            ObjectPlan {
                local: "contact",
                remote: "Contact",
                fields: &[
                    renamed("first_name", "FirstName"),
                    renamed("last_name", "LastName"),
                    cleaned("email", "Email"),
                    translated("status", "Status__c", &[("active", "A"), ("inactive", "I")]),
                    renamed("phone", "Phone"),
                    renamed("tags", "Tags__c"),
                    renamed("account_id", "Account_Key__c"),
                ],
            },
            ObjectPlan {
                local: "opportunity",
                remote: "Opportunity",
                fields: &[
                    renamed("title", "Name"),
                    renamed("amount", "Amount"),
                    translated(
                        "stage",
                        "StageName",
                        &[
                            ("new", "Prospecting"),
                            ("won", "Closed Won"),
                            ("lost", "Closed Lost"),
                        ],
                    ),
                    renamed("account_id", "Account_Key__c"),
                ],
            },
        ],
    },
    AccountPlan {
        name: "mail",
        limits: &[(60, 1_000)],
        objects: &[ObjectPlan {
            local: "contact",
            remote: "subscriber",
            fields: &[
                cleaned("email", "email_address"),
                renamed("first_name", "merge_fname"),
                translated(
                    "status",
                    "status",
                    &[("active", "subscribed"), ("inactive", "unsubscribed")],
                ),
            ],
        }],
    },
];

const fn renamed(local: &'static str, remote: &'static str) -> FieldPlan {
    FieldPlan {
        local,
        remote,
        change: Change::None,
    }
}

const fn cleaned(local: &'static str, remote: &'static str) -> FieldPlan {
    FieldPlan {
        local,
        remote,
        change: Change::TrimLowercase,
    }
}

const fn translated(
    local: &'static str,
    remote: &'static str,
    values: &'static [(&'static str, &'static str)],
) -> FieldPlan {
    FieldPlan {
        local,
        remote,
        change: Change::Values(values),
    }
}

impl AccountPlan {
    pub(super) fn object(&self, local: &str) -> Option<&'static ObjectPlan> {
        self.objects.iter().find(|object| object.local == local)
    }

    /// Its sections of the engine's configuration.
    pub(super) fn config(&self, base_url: &str) -> String {
        let name = self.name;
        let mut toml =
            format!("\n[providers.{name}]\ntype = \"rest\"\nbase_url = \"{base_url}\"\n");
        // Short waits, so that a run of half a minute shows a breaker open, probe and close.
        toml += "timeout = \"5s\"\nsettle = \"1s\"\n";
        toml += "retry = { max_attempts = 12, base_delay = \"200ms\", max_delay = \"2s\" }\n";
        toml += "breaker = { failure_threshold = 5, open_for = \"1s\" }\n";
        for (at, (limit, window_ms)) in self.limits.iter().enumerate() {
            toml += &format!(
                "[[providers.{name}.limits]]\nname = \"limit{at}\"\nkind = \"sliding\"\n\
                 limit = {limit}\nwindow = \"{window_ms}ms\"\n"
            );
        }
        for object in self.objects {
            toml += &format!(
                "[objects.{}.to.{name}]\nremote = \"{}\"\nfields = [\n",
                object.local, object.remote
            );
            for field in object.fields {
                toml += &format!("  {{ {} }},\n", field.config());
            }
            toml += "]\n";
        }
        toml
    }
}

impl ObjectPlan {
    /// The record as the account should hold it. Written against the documentation of mappings,
    /// not with the engine's code, so that the two check each other.
    pub(super) fn mapped(&self, local: &Map<String, Value>) -> Map<String, Value> {
        let fields = self.fields.iter();
        fields
            .filter_map(|field| {
                let value = local.get(field.local).filter(|value| !value.is_null())?;
                Some((field.remote.to_owned(), field.change.applied(value)))
            })
            .collect()
    }
}

impl FieldPlan {
    fn config(&self) -> String {
        let names = format!("local = \"{}\", remote = \"{}\"", self.local, self.remote);
        match self.change {
            Change::None => names,
            Change::TrimLowercase => {
                format!("{names}, convert = [\"trim\", \"lowercase\"], lossy = true")
            }
            Change::Values(values) => {
                let pairs: Vec<String> = values
                    .iter()
                    .map(|(local, remote)| format!("{local} = \"{remote}\""))
                    .collect();
                format!("{names}, values = {{ {} }}", pairs.join(", "))
            }
        }
    }
}

impl Change {
    fn applied(&self, value: &Value) -> Value {
        match (self, value.as_str()) {
            (Change::TrimLowercase, Some(text)) => json!(text.trim().to_lowercase()),
            (Change::Values(values), Some(text)) => {
                let remote = values.iter().find(|(local, _)| *local == text);
                remote.map_or_else(|| value.clone(), |(_, remote)| json!(remote))
            }
            _ => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_accounts_is_valid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.toml");
        let sections = ACCOUNTS
            .iter()
            .map(|account| account.config("http://127.0.0.1:9100"));
        std::fs::write(&path, sections.collect::<String>()).unwrap();
        let settings = syncline::settings::Settings::load(Some(&path));
        assert!(settings.is_ok(), "{}", settings.err().unwrap());
    }

    #[test]
    fn a_record_is_mapped_by_name_case_and_table() {
        let contact = json!({"first_name": "Ada", "email": " Ada@Example.COM ", "status": "active", "shoe": 38});
        let mapped = ACCOUNTS[0]
            .object("contact")
            .unwrap()
            .mapped(contact.as_object().unwrap());
        assert_eq!(
            Value::Object(mapped),
            json!({"FirstName": "Ada", "Email": "ada@example.com", "Status__c": "A"})
        );
    }
}
