//! What every path begins with: the place of an API's version.

use super::TemplateError;
use super::file::ProviderBlock;
use super::problems::Problems;

/// The root in use, and how another version's is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ApiRoot {
    path: String,
    /// With `{api_version}` in it, for versions that are not listed.
    template: Option<String>,
    /// By version.
    listed: Vec<(String, String)>,
}

const VERSION: &str = "{api_version}";

impl ApiRoot {
    pub(crate) fn compile(block: &ProviderBlock, problems: &mut Problems) -> ApiRoot {
        let mut root = ApiRoot {
            path: String::new(),
            template: block.root.clone(),
            listed: block.roots.clone().into_iter().collect(),
        };
        let roots = root
            .listed
            .iter()
            .map(|(name, path)| (format!("provider.roots.{name}"), path));
        let template = block
            .root
            .iter()
            .map(|path| ("provider.root".to_owned(), path));
        for (key, path) in template.chain(roots) {
            if !is_root(&path.replace(VERSION, "v1")) {
                problems.add(key, TemplateError::NotARoot(path.clone()));
            }
        }
        match &block.api_version {
            Some(version) => {
                let chosen = root.choose(version);
                problems.note("provider.api_version", chosen);
            }
            None => match &block.root {
                Some(path) if path.contains(VERSION) => {
                    let missing = TemplateError::Missing("api_version");
                    problems.add("provider.api_version", missing);
                }
                Some(path) => root.path = path.clone(),
                None => {}
            },
        }
        root
    }

    /// Takes the root of this version.
    pub(crate) fn choose(&mut self, version: &str) -> Result<(), TemplateError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let dots = version.bytes().all(|byte| byte == b'.');
        let not_a_version = || TemplateError::NotAVersion(version.to_owned());
        if version.is_empty() || version.len() > 32 || dots || !version.bytes().all(good) {
            return Err(not_a_version());
        }
        let listed = self.listed.iter().find(|(name, _)| name == version);
        self.path = match (listed, &self.template) {
            (Some((_, path)), _) => path.clone(),
            (None, Some(template)) if template.contains(VERSION) => {
                template.replace(VERSION, version)
            }
            (None, _) => return Err(not_a_version()),
        };
        Ok(())
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

fn is_root(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_~".contains(&byte);
    path.starts_with('/')
        && !path.starts_with("//")
        && !path.ends_with('/')
        && path.bytes().all(plain)
}
