//! What came of deliveries and of asking for changes.

/// What came of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookResult {
    /// At least one change in it was new; all of it is durable.
    Taken,
    /// All of it was taken before.
    Duplicate,
    /// Nothing in it is about an object or of a kind that is kept in step.
    Ignored,
    /// The signature is missing or not the account's, or the delivery is for another account.
    Forged,
    /// Signed outside the time that is allowed.
    Stale,
    /// Over the size that is read.
    TooLarge,
    /// Faster than the account may deliver.
    RateLimited,
    /// Signed, and not of the provider's shape.
    Unreadable,
    /// The node could not take it; the provider may try again.
    Refused,
}

/// What came of asking once for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PollResult {
    /// A page that was read and taken.
    Page,
    /// No page came, or what came was not taken; the place in the list stays.
    Failed,
    /// The list does not go back far enough: changes were missed, and a resync is due.
    Gap,
}

impl WebhookResult {
    /// Every result.
    pub const ALL: [WebhookResult; 9] = [
        WebhookResult::Taken,
        WebhookResult::Duplicate,
        WebhookResult::Ignored,
        WebhookResult::Forged,
        WebhookResult::Stale,
        WebhookResult::TooLarge,
        WebhookResult::RateLimited,
        WebhookResult::Unreadable,
        WebhookResult::Refused,
    ];

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            WebhookResult::Taken => "taken",
            WebhookResult::Duplicate => "duplicate",
            WebhookResult::Ignored => "ignored",
            WebhookResult::Forged => "forged",
            WebhookResult::Stale => "stale",
            WebhookResult::TooLarge => "too_large",
            WebhookResult::RateLimited => "rate_limited",
            WebhookResult::Unreadable => "unreadable",
            WebhookResult::Refused => "refused",
        }
    }
}

impl PollResult {
    /// Every result.
    pub const ALL: [PollResult; 3] = [PollResult::Page, PollResult::Failed, PollResult::Gap];

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            PollResult::Page => "page",
            PollResult::Failed => "failed",
            PollResult::Gap => "gap",
        }
    }
}
