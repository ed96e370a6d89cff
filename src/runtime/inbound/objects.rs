//! Which objects come in from which account, and what they are called here.

use std::collections::{BTreeMap, BTreeSet};

use engine::shard::AccountPlan;

/// Local names by account and remote name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InboundObjects {
    of: BTreeMap<(String, String), String>,
}

impl InboundObjects {
    /// The objects whose changes the accounts' plans take.
    pub(crate) fn of<'p>(plans: impl IntoIterator<Item = &'p AccountPlan>) -> InboundObjects {
        let mut of = BTreeMap::new();
        for plan in plans {
            let taken = plan.two_way.iter().filter(|(_, two_way)| two_way.inbound);
            // Of two objects that are one at the account, the first by name has it.
            let objects: BTreeSet<&String> = taken.map(|(object, _)| object).collect();
            for object in objects {
                let mapping = plan.mappings.get(object);
                let remote = mapping.map_or_else(
                    || plan.definition.remote_name(object),
                    |mapping| mapping.remote(),
                );
                let key = (plan.name.to_string(), remote.to_owned());
                of.entry(key).or_insert_with(|| object.clone());
            }
        }
        InboundObjects { of }
    }

    /// The local name; `None`: such changes are not taken.
    pub(crate) fn local(&self, account: &str, remote: &str) -> Option<&str> {
        let key = (account.to_owned(), remote.to_owned());
        self.of.get(&key).map(String::as_str)
    }

    /// Remote and local names of one account's objects.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no shard makes calls for changes yet")
    )]
    pub(crate) fn of_account(&self, account: &str) -> impl Iterator<Item = (&str, &str)> {
        let own = self.of.iter().filter(move |((of, _), _)| of == account);
        own.map(|((_, remote), local)| (remote.as_str(), local.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use crate::runtime::plans;
    use crate::settings::{Settings, Source};

    use super::*;

    #[test]
    fn an_object_comes_in_where_its_direction_says_so() {
        let text = "[providers.crm]\ntype = \"hubspot\"\n\
                    [objects.contact]\ndirection = \"both\"\n\
                    [objects.contact.to.crm]\nremote = \"contacts\"\n\
                    [objects.deal.to.crm]\nremote = \"deals\"\n";
        let settings = Settings::read(&Source::new("test", text)).unwrap();
        let crm = settings.provider("crm").unwrap();
        let plan = plans::plan(&settings, "crm", crm).unwrap();
        let objects = InboundObjects::of([&plan]);
        assert_eq!(objects.local("crm", "contacts"), Some("contact"));
        assert_eq!(objects.local("crm", "deals"), None);
        assert_eq!(objects.local("other", "contacts"), None);
    }
}
