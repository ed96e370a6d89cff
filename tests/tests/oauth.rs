//! Tokens end, are renewed once for all shards, and outlive the process; the records arrive.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use syncline_tests::process::{Answer, Config, Node, Running, program, request, until};

/// A simulated account that hands out tokens.
struct Account {
    _running: Running,
    addr: std::net::SocketAddr,
}

impl Account {
    fn start(provider: &str, options: &[&str]) -> Account {
        let mut command = Command::new(program());
        command.args(["mock", provider, "--listen", "127.0.0.1:0"]);
        let mut running = Running::start(command.args(options));
        let line = running.next_line();
        let addr = line.strip_prefix("listening http://");
        let addr = addr.and_then(|addr| addr.parse().ok());
        Account {
            _running: running,
            addr: addr.unwrap_or_else(|| panic!("{line:?} names no address")),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn ask(&self, method: &str, path: &str) -> Answer {
        request(self.addr, method, path, b"").unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// Ends every token handed out so far.
    fn expire(&self) {
        assert_eq!(self.ask("POST", "/__mock/expire").status, 204);
    }

    /// Requests for a token, by their statuses.
    fn asked(&self) -> Vec<u64> {
        let journal = self.ask("GET", "/__mock/journal").json();
        let calls = journal["calls"].as_array().expect("a list").iter();
        let asked = calls.filter(|call| call["path"].as_str().is_some_and(is_token_path));
        asked
            .map(|call| call["status"].as_u64().unwrap_or(0))
            .collect()
    }

    fn refused(&self) -> usize {
        let journal = self.ask("GET", "/__mock/journal").json();
        let calls = journal["calls"].as_array().expect("a list");
        calls.iter().filter(|call| call["status"] == 401).count()
    }

    fn records(&self) -> usize {
        let records = self.ask("GET", "/__mock/records").json();
        records["records"].as_array().expect("a list").len()
    }
}

fn is_token_path(path: &str) -> bool {
    path.split('?')
        .next()
        .is_some_and(|path| path.ends_with("/token"))
}

/// Three shards, so that several threads meet an ended token.
fn node(kind: &str, account: &Account, auth: &str) -> Node {
    let url = account.url();
    let (remote, external_id) = match kind {
        "salesforce" => ("Contact", "External_Id__c"),
        _ => ("contacts", "external_id"),
    };
    Node::start(Config::new().shards(3).with(&format!(
        "[providers.crm]\ntype = \"{kind}\"\nbase_url = \"{url}\"\nsettle = \"300ms\"\n\
         [providers.crm.auth]\n{auth}\n\
         [objects.contact.to.crm]\nremote = \"{remote}\"\nexternal_id = \"{external_id}\"\n",
    )))
}

/// `field` is one that the provider requires.
fn upsert(node: &Node, field: &str, round: usize, count: usize) {
    let events: Vec<Value> = (0..count)
        .map(|n| {
            json!({"operation": "UPSERT", "object": "contact", "record_id": format!("c-{n}"),
                   "data": {field: format!("r{round}-{n}")}})
        })
        .collect();
    let answer = node.post("/v1/sync", json!(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
}

fn token_state(node: &Node) -> String {
    let status = node.get("/v1/providers/crm/status").json();
    status["token_state"].as_str().expect("a state").to_owned()
}

/// A file that only its owner may read.
fn secret(folder: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    format!("file:{}", path.display())
}

#[test]
fn ended_tokens_are_renewed_once_for_all_shards_and_kept_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder for secrets");
    let account = Account::start("salesforce", &["--client-secret", "s3cret-client"]);
    let client_secret = secret(folder.path(), "client", "s3cret-client\n");
    let auth = format!(
        "kind = \"oauth2_client_credentials\"\nclient_id = \"app\"\nclient_secret = \"{client_secret}\""
    );
    let mut node = node("salesforce", &account, &auth);
    upsert(&node, "LastName", 0, 60);
    assert!(node.drain().is_empty());
    assert_eq!(account.records(), 60);
    assert_eq!(account.asked(), [200]);
    assert_eq!(token_state(&node), "valid");

    node.kill();
    node.restart();
    upsert(&node, "LastName", 1, 60);
    assert!(node.drain().is_empty());
    assert_eq!(account.asked(), [200], "the kept token is used");

    account.expire();
    upsert(&node, "LastName", 2, 60);
    assert!(node.drain().is_empty());
    assert_eq!(
        account.asked(),
        [200, 200],
        "a storm of 401s costs one token"
    );
    assert!(account.refused() >= 1);

    let shown = [
        node.get("/health").json().to_string(),
        String::from_utf8_lossy(&node.get("/metrics").body).into_owned(),
        node.process().errors(),
    ];
    for text in shown {
        assert!(
            !text.contains("s3cret") && !text.contains("00D5e"),
            "{text}"
        );
    }
    let token = fs::read(node.data_dir().join("tokens/crm.token")).expect("it is kept");
    assert!(!token.windows(5).any(|part| part == b"00D5e"));
}

#[test]
fn short_lived_tokens_are_renewed_ahead_while_records_flow() {
    let folder = tempfile::tempdir().expect("a folder for secrets");
    let account = Account::start("hubspot", &["--token-ttl", "3s", "--refresh-token", "r-1"]);
    let refresh_token = secret(folder.path(), "refresh", "r-1");
    let client_secret = secret(folder.path(), "client", "s3cret-client");
    let auth = format!(
        "kind = \"oauth2_refresh\"\nclient_id = \"app\"\nclient_secret = \"{client_secret}\"\n\
         refresh_token = \"{refresh_token}\""
    );
    let node = node("hubspot", &account, &auth);
    upsert(&node, "lastname", 0, 20);
    assert!(node.drain().is_empty());
    until("three tokens", || {
        (account.asked().len() >= 3).then_some(())
    });
    upsert(&node, "lastname", 1, 20);
    assert!(node.drain().is_empty());
    assert!(account.asked().iter().all(|status| *status == 200));
    assert_eq!(account.records(), 20);
}

#[test]
fn refused_credentials_hold_the_account_and_say_so() {
    let folder = tempfile::tempdir().expect("a folder for secrets");
    let account = Account::start("salesforce", &["--client-secret", "s3cret-client"]);
    let client_secret = secret(folder.path(), "client", "wrong-s3cret");
    let auth = format!(
        "kind = \"oauth2_client_credentials\"\nclient_id = \"app\"\nclient_secret = \"{client_secret}\""
    );
    let mut node = node("salesforce", &account, &auth);
    upsert(&node, "LastName", 0, 3);
    until("refused credentials", || {
        (token_state(&node) == "refused").then_some(())
    });
    until("the reason", || {
        let status = node.get("/v1/sync/status/c-0?object=contact").json();
        (status["providers"][0]["reason"] == "auth").then_some(())
    });
    assert_eq!(account.asked(), [400], "asked once, then every minute");
    assert_eq!(account.records(), 0);
    assert_ne!(node.get("/health").json()["status"], "healthy");
    assert!(!node.process().errors().contains("s3cret"));
}
