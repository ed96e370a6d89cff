//! A PostgreSQL of the test's own, in a temporary folder, as an ordinary user.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use syncline_postgres::{Address, Connection, Host, Password, Row, Tls};
use tempfile::TempDir;

/// Who runs the server if we are root: it refuses to run as such.
const NOBODY: u32 = 65_534;

pub(crate) const PASSWORD: &str = "p\u{e4}ss w'ord";

/// A running server, stopped and removed when dropped.
pub(crate) struct Cluster {
    programs: Programs,
    folder: TempDir,
    port: u16,
    server: Mutex<Option<Child>>,
}

/// Why there is none; printed as a skip.
#[derive(Debug, Clone)]
pub(crate) struct Unavailable(String);

#[derive(Debug, Clone)]
struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    library_path: String,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

static PROGRAMS: OnceLock<Result<Programs, Unavailable>> = OnceLock::new();

impl Cluster {
    /// The server that the tests of this binary share, for those that do not stop it.
    pub(crate) fn shared() -> Result<Arc<Cluster>, Unavailable> {
        let mut shared = SHARED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(cluster) = shared.upgrade() {
            return Ok(cluster);
        }
        let cluster = Arc::new(Cluster::start()?);
        *shared = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    /// A server alone.
    pub(crate) fn start() -> Result<Cluster, Unavailable> {
        let programs = Programs::get()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may give folders away");
        }
        let permissions = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder.path(), permissions).expect("our folder");
        let cluster = Cluster {
            port: free_port(),
            programs,
            folder,
            server: Mutex::new(None),
        };
        cluster.init()?;
        cluster.run()?;
        Ok(cluster)
    }

    /// By its socket, as the superuser, in a database.
    pub(crate) fn address(&self, database: &str) -> Address {
        Address {
            host: Host::Socket(self.folder.path().to_owned()),
            port: self.port,
            user: "postgres".to_owned(),
            password: None,
            database: database.to_owned(),
            tls: Tls::Off,
        }
    }

    /// By TCP, where a password is asked for.
    pub(crate) fn tcp_address(&self, host: &str) -> Address {
        Address {
            host: Host::Name(host.to_owned()),
            password: Some(Password::new(PASSWORD)),
            ..self.address("postgres")
        }
    }

    /// A fresh database of this name.
    pub(crate) async fn database(&self, name: &str) -> Address {
        let mut connection = Connection::open(&self.address("postgres")).await.unwrap();
        connection
            .query(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        connection.close().await;
        self.address(name)
    }

    /// A file of the server's own folder, such as a certificate.
    pub(crate) fn install(&self, name: &str, content: &str) -> PathBuf {
        let path = self.data().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path
    }

    /// Stops it as a crash does: nobody says goodbye.
    pub(crate) fn crash(&self) {
        self.stop(Signal::QUIT);
    }

    /// Stops it in order, but at once.
    pub(crate) fn shut_down(&self) {
        self.stop(Signal::INT);
    }

    /// Starts it again where it was.
    pub(crate) fn run(&self) -> Result<(), Unavailable> {
        let mut server = self
            .programs
            .command(&self.programs.postgres)
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string()])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| Unavailable(format!("postgres: {error}")))?;
        let stderr = server.stderr.take().expect("it was asked for");
        let ready = wait_until_ready(stderr);
        *self.server.lock().unwrap() = Some(server);
        ready
    }

    fn stop(&self, signal: Signal) {
        let Some(mut server) = self.server.lock().unwrap().take() else {
            return;
        };
        let pid = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        server.wait().unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn init(&self) -> Result<(), Unavailable> {
        let password = self.folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
        let output = self
            .programs
            .command(&self.programs.initdb)
            .arg("-D")
            .arg(self.data())
            .args([
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg(format!("--pwfile={}", password.display()))
            .output()
            .map_err(|error| Unavailable(format!("initdb: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Unavailable(format!(
                "initdb: {}",
                said.trim().replace('\n', "; ")
            )));
        }
        let settings = "
            wal_level = logical
            max_wal_senders = 40
            max_replication_slots = 40
            max_connections = 60
            listen_addresses = '127.0.0.1'
            fsync = off
            logging_collector = off
            log_destination = stderr
            log_min_messages = log
            shared_buffers = 32MB
            ";
        let path = self.data().join("postgresql.conf");
        let mut config = fs::read_to_string(&path).unwrap();
        config.push_str(settings);
        fs::write(&path, config).unwrap();
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Signal::QUIT);
    }
}

impl Unavailable {
    /// Says on the test's output that it did not run.
    pub(crate) fn skip(&self, name: &str) {
        println!("skipped: {name} ({})", self.0);
    }
}

/// Finds the server's programs, or fetches them, which may take its time.
pub(crate) fn find_programs() -> Result<(), Unavailable> {
    Programs::get().map(drop)
}

impl Programs {
    fn get() -> Result<Programs, Unavailable> {
        PROGRAMS.get_or_init(Programs::find).clone()
    }

    /// Installed, or unpacked from Debian's packages beside the build.
    fn find() -> Result<Programs, Unavailable> {
        let tool = project().join("tools/debian.sh");
        let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
            .map(|path| std::env::split_paths(&path).collect())
            .unwrap_or_default();
        folders.extend(versions(Path::new("/usr/lib/postgresql")));
        if let Some(programs) = Programs::among(&folders, String::new()) {
            return Ok(programs);
        }
        let said = Command::new(&tool).arg("postgresql").output();
        let said = said.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
        let libraries = Command::new(&tool).arg("--library-path").output();
        let libraries = libraries.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
        let unpacked = versions(&target().join("debian/usr/lib/postgresql"));
        Programs::among(&unpacked, libraries)
            .ok_or_else(|| Unavailable(format!("PostgreSQL is not installed; {said}")))
    }

    fn among(folders: &[PathBuf], library_path: String) -> Option<Programs> {
        let folder = folders
            .iter()
            .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())?;
        // The server finds its files from where it really lies.
        let real = |name: &str| fs::canonicalize(folder.join(name)).ok();
        Some(Programs {
            initdb: real("initdb")?,
            postgres: real("postgres")?,
            library_path,
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // A folder that anybody may enter, and no settings from whoever runs the tests.
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC");
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS"] {
            command.env_remove(name);
        }
        if !self.library_path.is_empty() {
            command.env("LD_LIBRARY_PATH", &self.library_path);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// A statement's first value.
pub(crate) async fn value(connection: &mut Connection, sql: &str) -> Option<String> {
    let rows: Vec<Row> = connection.query(sql).await.unwrap();
    rows.into_iter()
        .next()
        .and_then(|row| row.into_iter().next())
        .flatten()
}

fn wait_until_ready(stderr: ChildStderr) -> Result<(), Unavailable> {
    let (ready, came) = mpsc::sync_channel(1);
    // Reads on for as long as the server writes, so that it never waits for us.
    thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if std::env::var_os("SYNCLINE_TEST_POSTGRES_LOG").is_some() {
                eprintln!("{line}");
            }
            if line.contains("ready to accept connections") {
                drop(ready.try_send(Ok(())));
            }
            last = line;
        }
        drop(ready.try_send(Err(Unavailable(format!("postgres: {last}")))));
    });
    came.recv().expect("the reader says one or the other")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().unwrap().port()
}

/// The folders of programs, newest version first.
fn versions(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the project")
}

fn target() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    folder.unwrap_or_else(|| project().join("target"))
}
