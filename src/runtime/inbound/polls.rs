//! From settings to what each account is asked for.

use engine::shard::AccountPlan;

use super::objects::InboundObjects;
use super::poller::AccountPolls;
use crate::settings::Settings;

/// The lists of every account that has some, for the objects that come in from it.
pub(crate) fn account_polls<'p>(
    settings: &Settings,
    plans: impl IntoIterator<Item = &'p AccountPlan>,
    objects: &InboundObjects,
    now_ms: i64,
) -> Vec<AccountPolls> {
    let of = |plan: &AccountPlan| {
        let provider = settings.provider(&plan.name)?;
        let account = &provider.account;
        let mut polls = Vec::new();
        for (remote, local) in objects.of_account(&plan.name) {
            let mapping = plan.mappings.get(local);
            let read = mapping.into_iter().flat_map(|mapping| {
                let key = mapping.external_id().into_iter();
                mapping.remote_fields().chain(key)
            });
            let read: Vec<&str> = read.collect();
            for feed in plan.definition.poll_feeds() {
                let poll = plan.definition.poll(feed, remote, read.iter().copied());
                polls.extend(poll.map(|poll| match account.poll.overlap {
                    Some(overlap) => poll.with_overlap(overlap),
                    None => poll,
                }));
            }
        }
        let base_url = account.base_url.as_deref();
        let base_url = base_url.or(plan.definition.base_url()).unwrap_or_default();
        let asked = account.poll.enabled && !polls.is_empty();
        asked.then(|| AccountPolls {
            account: plan.name.to_string(),
            base_url: base_url.trim_end_matches('/').to_owned(),
            polls,
            interval: account.poll.interval,
            from_ms: account.poll.from.unwrap_or(now_ms),
        })
    };
    plans.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use crate::runtime::plans;
    use crate::settings::Source;

    use super::*;

    #[test]
    fn every_list_of_an_object_that_comes_in_is_asked_for_with_the_fields_of_its_mapping() {
        let text = "[providers.crm]\ntype = \"hubspot\"\n\
                    [providers.off]\ntype = \"salesforce\"\nbase_url = \"https://x.example.com/\"\n\
                    [objects.contact]\ndirection = \"both\"\n\
                    [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"key\"\n\
                    fields = [{ local = \"name\", remote = \"lastname\" }]\n\
                    [objects.contact.to.off]\nremote = \"Contact\"\n\
                    [objects.deal.to.crm]\nremote = \"deals\"\n";
        let mut settings = Settings::read(&Source::new("test", text)).unwrap();
        for (name, provider) in &mut settings.providers {
            provider.account.poll.enabled = name != "off";
        }
        let plans = ["crm", "off"].map(|name| {
            let account = settings.provider(name).unwrap();
            plans::plan(&settings, name, account).unwrap()
        });
        let objects = InboundObjects::of(&plans);
        let polled = account_polls(&settings, &plans, &objects, 7);
        assert_eq!(polled.len(), 1);
        let crm = &polled[0];
        assert_eq!(
            (crm.account.as_str(), crm.base_url.as_str(), crm.from_ms),
            ("crm", "https://api.hubapi.com", 7)
        );
        let lists: Vec<_> = crm
            .polls
            .iter()
            .map(|poll| (poll.feed(), poll.object(), poll.fields().join(",")))
            .collect();
        let fields = "lastmodifieddate,lastname,key".to_owned();
        assert_eq!(
            lists,
            [
                ("changes", "contacts", fields.clone()),
                ("deletes", "contacts", "lastname,key".to_owned()),
            ]
        );
    }
}
