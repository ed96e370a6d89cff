//! Objects and fields of the org.

use super::id::SalesforceId;

/// An object and what it asks of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: String,
    /// What the ids of its records begin with.
    pub(super) prefix: [u8; 3],
    pub(super) required: &'static [&'static str],
    /// Standard fields; `None` when any name is taken.
    standard: Option<&'static [&'static str]>,
}

/// The org's objects: the standard ones, and custom ones in the order of their first use.
#[derive(Debug, Clone, Default)]
pub(super) struct Schema {
    custom: Vec<String>,
}

struct Standard {
    name: &'static str,
    prefix: &'static [u8; 3],
    required: &'static [&'static str],
    fields: Option<&'static [&'static str]>,
}

/// Key prefixes from the Salesforce object reference; fields as far as integrations write them.
const STANDARD: [Standard; 9] = [
    Standard {
        name: "Contact",
        prefix: b"003",
        required: &["LastName"],
        fields: Some(&[
            "AccountId",
            "AssistantName",
            "AssistantPhone",
            "Birthdate",
            "Department",
            "Description",
            "DoNotCall",
            "Email",
            "Fax",
            "FirstName",
            "HasOptedOutOfEmail",
            "HomePhone",
            "LastName",
            "LeadSource",
            "MailingCity",
            "MailingCountry",
            "MailingPostalCode",
            "MailingState",
            "MailingStreet",
            "MiddleName",
            "MobilePhone",
            "OtherCity",
            "OtherCountry",
            "OtherPhone",
            "OtherPostalCode",
            "OtherState",
            "OtherStreet",
            "OwnerId",
            "Phone",
            "ReportsToId",
            "Salutation",
            "Suffix",
            "Title",
        ]),
    },
    Standard {
        name: "Account",
        prefix: b"001",
        required: &["Name"],
        fields: Some(&[
            "AccountNumber",
            "AccountSource",
            "AnnualRevenue",
            "BillingCity",
            "BillingCountry",
            "BillingPostalCode",
            "BillingState",
            "BillingStreet",
            "Description",
            "Fax",
            "Industry",
            "Name",
            "NumberOfEmployees",
            "OwnerId",
            "Ownership",
            "ParentId",
            "Phone",
            "Rating",
            "ShippingCity",
            "ShippingCountry",
            "ShippingPostalCode",
            "ShippingState",
            "ShippingStreet",
            "Sic",
            "Site",
            "TickerSymbol",
            "Type",
            "Website",
        ]),
    },
    Standard {
        name: "Opportunity",
        prefix: b"006",
        required: &["Name", "StageName", "CloseDate"],
        fields: Some(&[
            "AccountId",
            "Amount",
            "CampaignId",
            "CloseDate",
            "ContactId",
            "Description",
            "ForecastCategoryName",
            "IsPrivate",
            "LeadSource",
            "Name",
            "NextStep",
            "OwnerId",
            "Pricebook2Id",
            "Probability",
            "StageName",
            "TotalOpportunityQuantity",
            "Type",
        ]),
    },
    Standard {
        name: "Lead",
        prefix: b"00Q",
        required: &["LastName", "Company"],
        fields: Some(&[
            "AnnualRevenue",
            "City",
            "Company",
            "Country",
            "Description",
            "Email",
            "FirstName",
            "Industry",
            "LastName",
            "LeadSource",
            "MobilePhone",
            "NumberOfEmployees",
            "OwnerId",
            "Phone",
            "PostalCode",
            "Rating",
            "Salutation",
            "State",
            "Status",
            "Street",
            "Title",
            "Website",
        ]),
    },
    Standard {
        name: "Task",
        prefix: b"00T",
        required: &[],
        fields: None,
    },
    Standard {
        name: "Event",
        prefix: b"00U",
        required: &[],
        fields: None,
    },
    Standard {
        name: "Case",
        prefix: b"500",
        required: &[],
        fields: None,
    },
    Standard {
        name: "Campaign",
        prefix: b"701",
        required: &["Name"],
        fields: None,
    },
    Standard {
        name: "Product2",
        prefix: b"01t",
        required: &["Name"],
        fields: None,
    },
];

/// Fields that every record has and nobody writes.
pub(super) const SYSTEM: [&str; 5] = [
    "Id",
    "IsDeleted",
    "CreatedDate",
    "LastModifiedDate",
    "SystemModstamp",
];

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Schema {
    /// The object of that name, in any case; a custom one need not have records yet.
    pub(super) fn object(&self, name: &str) -> Option<Object> {
        let standard = STANDARD
            .iter()
            .find(|own| own.name.eq_ignore_ascii_case(name));
        if let Some(own) = standard {
            return Some(Object {
                name: own.name.to_owned(),
                prefix: *own.prefix,
                required: own.required,
                standard: own.fields,
            });
        }
        let known = self
            .custom
            .iter()
            .position(|own| own.eq_ignore_ascii_case(name));
        if known.is_none() && !name.ends_with("__c") {
            return None;
        }
        let at = known.unwrap_or(self.custom.len());
        let name = self.custom.get(at).map_or(name, String::as_str);
        let digit = |n: usize| BASE62.get(n % 62).copied().unwrap_or(b'0');
        Some(Object {
            name: name.to_owned(),
            prefix: [b'a', digit(at / 62), digit(at)],
            required: &[],
            standard: None,
        })
    }

    /// The object whose records have ids like this one.
    pub(super) fn object_of(&self, id: SalesforceId) -> Option<Object> {
        let standard = STANDARD.iter().find(|own| *own.prefix == id.prefix());
        let name = standard.map(|own| own.name).or_else(|| {
            let custom = self.custom.iter();
            let mut objects = custom.filter(|name| {
                let object = self.object(name);
                object.is_some_and(|object| object.prefix == id.prefix())
            });
            objects.next().map(String::as_str)
        });
        self.object(name?)
    }

    /// An object is used, so a custom one keeps its prefix from now on.
    pub(super) fn settle(&mut self, object: &Object) {
        if object.name.ends_with("__c") && !self.custom.contains(&object.name) {
            self.custom.push(object.name.clone());
        }
    }
}

impl Object {
    /// The id of one of its records.
    pub(super) fn id(&self, serial: u64) -> SalesforceId {
        SalesforceId::new(self.prefix, serial)
    }

    /// The standard fields that it is known to have.
    pub(super) fn standard_fields(&self) -> impl Iterator<Item = &'static str> {
        let merged = self.can_merge().then_some("MasterRecordId");
        let own = self.standard.unwrap_or_default().iter().copied();
        SYSTEM.into_iter().chain(merged).chain(own)
    }

    /// Whether there is such a field; custom fields exist as soon as they are named.
    pub(super) fn has(&self, field: &str) -> bool {
        self.is_writable(field)
            || SYSTEM.contains(&field)
            || field == "Name"
            || (field == "MasterRecordId" && self.can_merge())
    }

    /// Whether records of it can be merged, and those that were say into which.
    pub(super) fn can_merge(&self) -> bool {
        ["Account", "Contact", "Lead"].contains(&self.name.as_str())
    }

    /// Whether there is such a field and callers may write it.
    pub(super) fn is_writable(&self, field: &str) -> bool {
        if SYSTEM.contains(&field) {
            return false;
        }
        field.ends_with("__c") || self.standard.is_none_or(|own| own.contains(&field))
    }
}

/// The field that a relationship fills, and the parent's object as far as its name tells.
pub(super) fn reference(relationship: &str) -> (String, String) {
    match relationship.strip_suffix("__r") {
        Some(custom) => (format!("{custom}__c"), format!("{custom}__c")),
        None => (format!("{relationship}Id"), relationship.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_objects_get_a_prefix_of_their_own_and_keep_it() {
        let mut schema = Schema::default();
        for name in ["Invoice__c", "Item__c"] {
            let object = schema.object(name).unwrap();
            schema.settle(&object);
        }
        let first = schema.object("invoice__C").unwrap();
        let second = schema.object("Item__c").unwrap();
        assert_eq!((first.prefix, second.prefix), (*b"a00", *b"a01"));
        assert_eq!(schema.object_of(second.id(7)).unwrap().name, "Item__c");
        assert_eq!(schema.object("Nothing"), None);
    }

    #[test]
    fn standard_fields_are_known_by_name_and_custom_ones_by_their_end() {
        let contact = Schema::default().object("contact").unwrap();
        assert!(contact.is_writable("Email") && contact.is_writable("Status__c"));
        assert!(!contact.is_writable("first_name") && !contact.is_writable("Id"));
        assert!(contact.has("SystemModstamp") && contact.has("Name"));
        assert_eq!(reference("Account").0, "AccountId");
        assert_eq!(reference("Invoice__r").0, "Invoice__c");
    }
}
