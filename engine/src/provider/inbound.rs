//! The half of a definition by which changes come in.

use super::file::DefinitionFile;
use super::poll::PollDefinition;
use super::problems::Problems;
use super::webhook::WebhookDefinition;

/// How a provider tells of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inbound {
    /// By itself.
    pub(crate) webhook: Option<WebhookDefinition>,
    /// When it is asked, by names in their order.
    pub(crate) polls: Vec<PollDefinition>,
}

impl Inbound {
    pub(crate) fn compile(file: &DefinitionFile, problems: &mut Problems) -> Inbound {
        let objects = file.objects.values();
        let remotes: Vec<&str> = objects.map(|object| object.remote.as_str()).collect();
        let webhook = file.webhook.as_ref();
        let webhook =
            webhook.and_then(|block| WebhookDefinition::compile(block, &remotes, problems));
        let polls = file.poll.iter();
        let polls =
            polls.filter_map(|(name, block)| PollDefinition::compile(name, block, problems));
        Inbound {
            webhook,
            polls: polls.collect(),
        }
    }
}
