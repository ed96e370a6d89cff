//! Stand-in until its branch lands.

/// What an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "stand-in")]
pub enum Operation {
    Create,
    Read,
    Update,
    Upsert,
    Delete,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] =
        [Self::Create, Self::Read, Self::Update, Self::Upsert, Self::Delete];

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Read => "READ",
            Self::Update => "UPDATE",
            Self::Upsert => "UPSERT",
            Self::Delete => "DELETE",
        }
    }
}
