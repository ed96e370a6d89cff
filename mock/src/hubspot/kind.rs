//! The types of objects, under each of their names.

/// A type of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// As paths and the books name it.
    pub(super) name: String,
    pub(super) type_id: String,
    /// As events and messages name it; `object` for those without a name of their own there.
    pub(super) singular: &'static str,
}

/// Name, type id, singular (object type ids, HubSpot CRM guide, read 2026-11).
const KINDS: [(&str, &str, &str); 8] = [
    ("contacts", "0-1", "contact"),
    ("companies", "0-2", "company"),
    ("deals", "0-3", "deal"),
    ("tickets", "0-5", "ticket"),
    ("products", "0-7", "product"),
    ("line_items", "0-8", "line_item"),
    ("leads", "0-136", "object"),
    ("tasks", "0-27", "object"),
];

impl Kind {
    /// The type of that name, in the plural or singular, or by its type id; custom types by
    /// `p_NAME` or `2-NUMBER`.
    pub(super) fn of(text: &str) -> Option<Self> {
        let known = KINDS.iter().find(|(name, id, one)| {
            *name == text || *id == text || *one == text && text != "object"
        });
        if let Some((name, id, singular)) = known {
            return Some(Self {
                name: (*name).to_owned(),
                type_id: (*id).to_owned(),
                singular,
            });
        }
        let number = text.strip_prefix("2-");
        let custom =
            text.starts_with("p_") || number.is_some_and(|number| number.parse::<u64>().is_ok());
        custom.then(|| Self {
            name: text.to_owned(),
            type_id: text.to_owned(),
            singular: "object",
        })
    }

    /// The property that holds the time of the last change: contacts have their own.
    pub(super) fn modified_property(&self) -> &'static str {
        if self.name == "contacts" {
            "lastmodifieddate"
        } else {
            "hs_lastmodifieddate"
        }
    }

    /// What a read shows that names these properties: them alone, or the default ones.
    pub(super) fn shown_of(&self, named: &[String]) -> Vec<String> {
        if named.is_empty() {
            let default = self.default_properties().iter();
            return default.map(|name| (*name).to_owned()).collect();
        }
        named.to_vec()
    }

    /// Properties that a read returns without being asked.
    pub(super) fn default_properties(&self) -> &'static [&'static str] {
        match self.name.as_str() {
            "contacts" => &["email", "firstname", "lastname"],
            "companies" => &["name", "domain"],
            "deals" => &["dealname", "amount", "closedate", "dealstage", "pipeline"],
            "tickets" => &["subject", "content", "hs_pipeline_stage"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_of_a_type_leads_to_it() {
        for name in ["contacts", "contact", "0-1"] {
            assert_eq!(Kind::of(name).unwrap().name, "contacts");
        }
        assert_eq!(Kind::of("p_car").unwrap().type_id, "p_car");
        assert_eq!(Kind::of("2-3465404").unwrap().name, "2-3465404");
        for name in ["", "object", "people", "2-", "2-x"] {
            assert_eq!(Kind::of(name), None, "{name}");
        }
        assert_eq!(
            Kind::of("deals").unwrap().modified_property(),
            "hs_lastmodifieddate"
        );
    }
}
