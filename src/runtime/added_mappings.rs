//! Mappings that come with an account over the API, laid over the file's.

use engine::refusal::{Code, Refusal};
use net::http::AccountRequest;
use serde_json::{Map, Value};

use crate::settings::{Deletes, ObjectSettings, RecordSettings, Settings, TargetSettings, is_name};

/// Objects that an account may be given mappings of; a file of settings has a hundred at most.
const OBJECTS_MAX: usize = 1000;

/// Reads what was given.
///
/// # Errors
/// A refusal that names the member at fault.
pub(crate) fn check(settings: &Settings, request: &AccountRequest) -> Result<(), Refusal> {
    let Some(mappings) = &request.mappings else {
        return Ok(());
    };
    if mappings.len() > OBJECTS_MAX {
        let detail = format!("at most {OBJECTS_MAX} objects");
        return Err(Refusal::at(Code::InvalidField, "/mappings", detail));
    }
    for (object, given) in mappings {
        let at = format!("/mappings/{}", object.replace('~', "~0").replace('/', "~1"));
        if !is_name(object) {
            let detail = "expected letters, digits, `-` and `_`, at most 64";
            return Err(Refusal::at(Code::InvalidField, &at, detail));
        }
        let refused = |(below, detail): (String, String)| {
            Refusal::at(Code::InvalidField, format!("{at}{below}"), detail)
        };
        let target = TargetSettings::given(given).map_err(refused)?;
        let compiled = engine::mapping::Mapping::compile(object, &target.mapping(object));
        compiled.map_err(|error| refused((String::new(), error.to_string())))?;
        let wanted = settings.object(object);
        if wanted.is_some_and(|it| it.record.deletes == Deletes::Soft) && target.deleted.is_none() {
            let detail = "`deletes` is \"soft\" for this object, and there is no `deleted`";
            return Err(refused((String::new(), detail.to_owned())));
        }
    }
    Ok(())
}

/// The settings with an account's own mappings in place of those that the file has for it. They were
/// read when they were taken.
pub(crate) fn lay_over(settings: &mut Settings, account: &str, mappings: &Map<String, Value>) {
    for (_, object) in &mut settings.objects {
        object.to.retain(|(to, _)| to != account);
    }
    for (name, given) in mappings {
        let Ok(target) = TargetSettings::given(given) else {
            continue;
        };
        let mut objects = settings.objects.iter_mut();
        match objects.find(|(known, _)| known == name) {
            Some((_, object)) => object.to.push((account.to_owned(), target)),
            None => {
                let object = ObjectSettings {
                    record: RecordSettings::default(),
                    to: vec![(account.to_owned(), target)],
                };
                settings.objects.push((name.clone(), object));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Source;

    use super::*;

    fn request(mappings: &str) -> AccountRequest {
        let text = format!(r#"{{"name":"shop","mappings":{mappings}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn given_mappings_stand_in_place_of_the_files_and_beside_those_of_others() {
        let file = "[providers.shop]\ntype = \"rest\"\nbase_url = \"http://127.0.0.1:9\"\n\
                    [providers.crm]\ntype = \"rest\"\nbase_url = \"http://127.0.0.1:9\"\n\
                    [objects.contact.to.shop]\nremote = \"old\"\n\
                    [objects.contact.to.crm]\nremote = \"people\"\n\
                    [objects.deal.to.shop]\nremote = \"deals\"\n";
        let mut settings = Settings::read(&Source::new("test", file)).unwrap();
        let given = request(
            r#"{"contact":{"remote":"new","fields":[{"local":"a","remote":"A","default":1}]},
                "note":{}}"#,
        );
        check(&settings, &given).unwrap();
        lay_over(&mut settings, "shop", given.mappings.as_ref().unwrap());
        let of = |object: &str| {
            let to = &settings.object(object).unwrap().to;
            let remote = |target: &TargetSettings| target.remote.clone().unwrap_or_default();
            to.iter()
                .map(|(account, target)| format!("{account} {}", remote(target)))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("contact"), ["crm people", "shop new"]);
        assert_eq!(of("deal"), [""; 0]);
        assert_eq!(of("note"), ["shop "]);
    }

    #[test]
    fn a_mapping_that_would_not_load_from_a_file_is_refused_with_its_place() {
        let file = "[objects.note]\ndeletes = \"soft\"\n";
        let settings = Settings::read(&Source::new("test", file)).unwrap();
        for (mappings, pointer) in [
            (r#"{"a b":{}}"#, "/mappings/a b"),
            (r#"{"contact":7}"#, "/mappings/contact"),
            (r#"{"note":{}}"#, "/mappings/note"),
            (r#"{"contact":{"remot":"x"}}"#, "/mappings/contact"),
            (r#"{"contact":{"fields":{}}}"#, "/mappings/contact/fields"),
            (
                r#"{"contact":{"fields":[{"local":"a","remote":"A"},{"local":"b","colour":1}]}}"#,
                "/mappings/contact/fields/1",
            ),
            (
                r#"{"contact":{"fields":[{"local":"a","remote":"A","convert":"rot13"}]}}"#,
                "/mappings/contact",
            ),
        ] {
            let refusal = check(&settings, &request(mappings)).unwrap_err();
            assert_eq!(refusal.pointer.as_deref(), Some(pointer), "{mappings}");
        }
    }
}
