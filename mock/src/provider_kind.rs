//! The providers that can be played.

use std::fmt;
use std::str::FromStr;

use crate::account::AccountConfig;
use crate::hubspot::HubSpot;
use crate::outreach::Outreach;
use crate::pipedrive::Pipedrive;
use crate::provider::Provider;
use crate::rest::Rest;
use crate::salesforce::Salesforce;

/// A kind of account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Plain JSON over HTTP.
    Rest,
    /// A Salesforce org.
    Salesforce,
    /// A HubSpot portal.
    HubSpot,
    /// An Outreach org.
    Outreach,
    /// A Pipedrive company account.
    Pipedrive,
}

/// There is no such provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no simulated `{0}`; there are {names}", names = ProviderKind::names())]
pub struct UnknownProvider(String);

impl ProviderKind {
    /// Every kind, in the order of its introduction.
    pub const ALL: [Self; 5] = [
        Self::Rest,
        Self::Salesforce,
        Self::HubSpot,
        Self::Outreach,
        Self::Pipedrive,
    ];

    /// The name it is asked for by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Salesforce => "salesforce",
            Self::HubSpot => "hubspot",
            Self::Outreach => "outreach",
            Self::Pipedrive => "pipedrive",
        }
    }

    /// All names, for a person to read.
    #[must_use]
    pub fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
        names.join(", ")
    }

    /// An account without records.
    pub(crate) fn open(self, config: &AccountConfig) -> Box<dyn Provider> {
        let credentials = config.credentials.clone();
        match self {
            Self::Rest => Box::new(Rest::new(credentials, config.unique, config.honour_keys)),
            Self::Salesforce => Box::new(Salesforce::new(config)),
            Self::HubSpot => Box::new(HubSpot::new(config)),
            Self::Outreach => Box::new(Outreach::new(config)),
            Self::Pipedrive => Box::new(Pipedrive::new(config)),
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProviderKind {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}
