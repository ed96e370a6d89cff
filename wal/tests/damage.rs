//! Damage to a sealed log is noticed or harmless: never other content, never a shorter log.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::*;
use syncline_wal::sim::{SimFaults, SimStorage};
use syncline_wal::{Damage, LogLimits, LogOptions, Lsn, OpenError, Storage};

const PAGE: usize = 4096;

/// Segments of four pages: every byte of a log can be tried.
fn tiny() -> LogOptions {
    let limits = LogLimits {
        segment_bytes: 4 * PAGE as u64,
        segment_bytes_min: 4 * PAGE as u64,
        payload_bytes_max: 1500,
        block_bytes: PAGE,
        staged_bytes_max: 16 * 1024,
        tail_cache_bytes: 0,
        read_cache_bytes: 1,
        outcome_reserve_bytes: 0,
        free_bytes_min: 0,
    };
    LogOptions {
        limits,
        ..options()
    }
}

/// A sealed log of three segments and a spare one.
fn sealed() -> (SimStorage, Vec<Entry>) {
    let storage = sim();
    let mut driver = Driver::open_with(storage.clone(), tiny(), Lsn::ZERO).unwrap();
    for n in 0..7 {
        driver.maintain().unwrap();
        driver.append(&payload(n, 200 + n * 150)).unwrap();
        driver.commit_all().unwrap();
    }
    driver.settle().unwrap();
    assert_eq!(driver.log.segments().count(), 3);
    (storage, driver.entries)
}

fn files(storage: &SimStorage) -> BTreeMap<String, Vec<u8>> {
    let names = storage.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), storage.contents(&name).unwrap()))
        .collect()
}

/// How the damage was met.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    Refused,
    Harmless,
}

/// Opens the damaged log: it is refused and left as it is, or all its content is there.
fn open(storage: &SimStorage, written: &[Entry], what: &str) -> Met {
    let before = files(storage);
    match Driver::open_with(storage.clone(), tiny(), Lsn::ZERO) {
        Ok(mut driver) => {
            assert_eq!(
                driver.entries.len(),
                written.len(),
                "{what}: silently shorter"
            );
            assert_eq!(driver.entries, written, "{what}");
            driver.assert_reads();
            Met::Harmless
        }
        Err(OpenError::Corrupt(_)) => {
            assert!(files(storage) == before, "{what}: refused, but changed");
            Met::Refused
        }
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn copy(storage: &SimStorage) -> SimStorage {
    storage.snapshot()
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let (storage, written) = sealed();
    let mut refused = BTreeMap::<String, usize>::new();
    for (name, bytes) in files(&storage) {
        for at in 0..bytes.len() {
            let damaged = copy(&storage);
            assert!(damaged.flip(&name, at as u64, 1 << (at % 8)));
            if open(&damaged, &written, &format!("{name} byte {at}")) == Met::Refused {
                *refused.entry(name.clone()).or_default() += 1;
            }
        }
    }
    // Header and blocks: everything but the space behind the last block is guarded. The last
    // segment holds a header, one block and the seal.
    let expected = [
        ("0000000001.seg".to_owned(), 4 * PAGE),
        ("0000000002.seg".to_owned(), 4 * PAGE),
        ("0000000003.seg".to_owned(), 3 * PAGE),
    ];
    for (name, at_least) in expected {
        assert!(
            refused[&name] >= at_least,
            "{name}: {} of {at_least}",
            refused[&name]
        );
    }
}

#[test]
fn every_truncation_of_a_segment_or_the_watermark_is_noticed() {
    let (storage, written) = sealed();
    for (name, bytes) in files(&storage) {
        let lengths = (0..bytes.len()).filter(|len| len % 64 <= 1 || len % 512 == 511);
        for len in lengths {
            let damaged = copy(&storage);
            damaged.overwrite(&name, bytes[..len].to_vec());
            let met = open(&damaged, &written, &format!("{name} cut to {len}"));
            // The fourth is the spare: it holds nothing.
            assert_eq!(
                met == Met::Harmless,
                name == "0000000004.seg",
                "{name} cut to {len}"
            );
        }
    }
}

#[test]
fn a_longer_file_is_noticed() {
    let (storage, written) = sealed();
    for (name, mut bytes) in files(&storage) {
        bytes.extend_from_slice(&[0; PAGE]);
        let damaged = copy(&storage);
        damaged.overwrite(&name, bytes);
        let met = open(&damaged, &written, &name);
        assert_eq!(met == Met::Harmless, name == "0000000004.seg", "{name}");
    }
}

#[test]
fn a_missing_file_is_noticed() {
    let (storage, written) = sealed();
    for name in storage.list().unwrap() {
        let damaged = copy(&storage);
        damaged.remove(&name).unwrap();
        let met = open(&damaged, &written, &format!("{name} removed"));
        assert_eq!(met == Met::Harmless, name == "0000000004.seg", "{name}");
    }
}

#[test]
fn a_segment_under_another_name_is_noticed() {
    let (storage, written) = sealed();
    let files = files(&storage);
    let names: Vec<_> = files.keys().filter(|name| name.ends_with(".seg")).collect();
    for from in &names {
        for to in &names {
            if from == to {
                continue;
            }
            let duplicated = copy(&storage);
            duplicated.overwrite(to, files[*from].clone());
            assert_eq!(
                open(&duplicated, &written, &format!("{from} over {to}")),
                Met::Refused
            );
            let swapped = copy(&storage);
            swapped.overwrite(to, files[*from].clone());
            swapped.overwrite(from, files[*to].clone());
            assert_eq!(
                open(&swapped, &written, &format!("{from} and {to}")),
                Met::Refused
            );
        }
        for to in ["0000000009.seg", "copy.seg", "1.seg"] {
            let renamed = copy(&storage);
            renamed.overwrite(to, files[*from].clone());
            let met = open(&renamed, &written, &format!("{from} as {to}"));
            let spare_ahead = *from == "0000000004.seg" && to == "0000000009.seg";
            assert_eq!(met == Met::Harmless, spare_ahead, "{from} as {to}");
        }
    }
}

#[test]
fn blocks_at_the_place_of_others_are_noticed() {
    let (storage, written) = sealed();
    let files = files(&storage);
    let pages: Vec<(String, usize)> = (1..=3)
        .flat_map(|n| (1..4).map(move |page| (format!("{n:010}.seg"), page * PAGE)))
        .collect();
    let page = |(name, at): &(String, usize)| files[name][*at..at + PAGE].to_vec();
    let put = |storage: &SimStorage, (name, at): &(String, usize), bytes: &[u8]| {
        let mut file = storage.contents(name).unwrap();
        file[*at..at + PAGE].copy_from_slice(bytes);
        storage.overwrite(name, file);
    };
    let last_page = ("0000000003.seg".to_owned(), 3 * PAGE);
    for one in &pages {
        for other in pages.iter().filter(|other| *other != one) {
            let copied = copy(&storage);
            put(&copied, other, &page(one));
            let met = open(&copied, &written, &format!("{one:?} over {other:?}"));
            // Only what lies behind the seal may be anything.
            assert!(
                met == Met::Refused || *other == last_page,
                "{one:?} over {other:?}"
            );
            put(&copied, one, &page(other));
            open(&copied, &written, &format!("{one:?} and {other:?}"));
        }
        let zeroed = copy(&storage);
        put(&zeroed, one, &[0; PAGE]);
        let met = open(&zeroed, &written, &format!("{one:?} zeroed"));
        assert!(met == Met::Refused || *one == last_page, "{one:?} zeroed");
    }
}

/// A log of two segments, three commits in the second, neither sealed nor closed.
fn unsealed() -> (SimStorage, Vec<Entry>) {
    let storage = sim();
    let options = || LogOptions {
        limits: LogLimits {
            segment_bytes: 8 * PAGE as u64,
            ..tiny().limits
        },
        ..tiny()
    };
    let mut driver = Driver::open_with(storage.clone(), options(), Lsn::ZERO).unwrap();
    for n in 0..10 {
        driver.maintain().unwrap();
        driver.append(&payload(n, 900)).unwrap();
        driver.commit_all().unwrap();
    }
    assert_eq!(driver.log.segments().count(), 2);
    (storage, driver.entries)
}

#[test]
fn before_the_seal_only_the_last_commit_can_pass_for_a_torn_one() {
    let (storage, written) = unsealed();
    for at in PAGE..8 * PAGE {
        let damaged = copy(&storage);
        assert!(damaged.flip("0000000002.seg", at as u64, 1 << (at % 8)));
        let opened = Driver::open_with(damaged, tiny(), Lsn::ZERO);
        match at / PAGE {
            1 | 2 => assert!(opened.err().unwrap().corruption().is_some(), "byte {at}"),
            3 => {
                let driver = opened.unwrap();
                assert!(driver.report.torn.is_some(), "byte {at}");
                assert_eq!(driver.entries, written[..written.len() - 1]);
            }
            _ => assert_eq!(opened.unwrap().entries, written, "byte {at}"),
        }
    }
}

#[test]
fn a_segment_in_use_that_is_missing_is_noticed_before_any_seal() {
    let (storage, written) = unsealed();
    storage.remove("0000000002.seg").unwrap();
    assert_eq!(open(&storage, &written, "removed"), Met::Refused);
}

#[test]
fn damage_is_told_with_file_offset_and_positions() {
    let (storage, _) = sealed();
    storage.flip("0000000002.seg", 2 * PAGE as u64 + 100, 1);
    let error = Driver::open_with(storage, tiny(), Lsn::ZERO).err().unwrap();
    let corruption = error.corruption().unwrap();
    assert_eq!(corruption.path.file_name().unwrap(), "0000000002.seg");
    assert_eq!(corruption.offset, 2 * PAGE as u64);
    assert_eq!(corruption.from, Lsn::new(6 * PAGE as u64));
    assert!(corruption.to > corruption.from);
    assert!(matches!(corruption.damage, Damage::Block(_)));
}

/// One change to a file of the log.
#[derive(Clone, Debug)]
enum Harm {
    Byte {
        file: prop::sample::Index,
        at: prop::sample::Index,
        to: u8,
    },
    Page {
        file: prop::sample::Index,
        page: usize,
        from: prop::sample::Index,
        from_page: usize,
    },
    Zero {
        file: prop::sample::Index,
        sector: usize,
    },
    Cut {
        file: prop::sample::Index,
        at: prop::sample::Index,
    },
    /// A field of a block header, the checksum made right again.
    Forged {
        file: prop::sample::Index,
        page: usize,
        at: usize,
        to: u8,
    },
}

fn harm() -> impl Strategy<Value = Harm> {
    let file = any::<prop::sample::Index>;
    prop_oneof![
        (file(), file(), any::<u8>()).prop_map(|(file, at, to)| Harm::Byte { file, at, to }),
        (file(), 0usize..4, file(), 0usize..4).prop_map(|(file, page, from, from_page)| {
            Harm::Page {
                file,
                page,
                from,
                from_page,
            }
        }),
        (file(), 0usize..32).prop_map(|(file, sector)| Harm::Zero { file, sector }),
        (file(), file()).prop_map(|(file, at)| Harm::Cut { file, at }),
        (file(), 1usize..4, 4usize..60, any::<u8>())
            .prop_map(|(file, page, at, to)| Harm::Forged { file, page, at, to }),
    ]
}

fn apply(storage: &SimStorage, harm: &Harm) {
    let files = files(storage);
    let names: Vec<_> = files.keys().collect();
    let put = |file: &prop::sample::Index, change: &dyn Fn(&mut Vec<u8>)| {
        let name = names[file.index(names.len())];
        let mut bytes = files[name].clone();
        change(&mut bytes);
        storage.overwrite(name, bytes);
    };
    let range = |page: usize, bytes: usize| page * PAGE..((page + 1) * PAGE).min(bytes);
    match harm {
        Harm::Byte { file, at, to } => put(file, &|bytes| {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
        }),
        Harm::Page {
            file,
            page,
            from,
            from_page,
        } => put(file, &|bytes| {
            let source = &files[names[from.index(names.len())]];
            let (to, from) = (range(*page, bytes.len()), range(*from_page, source.len()));
            if to.start < to.end && from.start < from.end && to.len() == from.len() {
                bytes[to].copy_from_slice(&source[from]);
            }
        }),
        Harm::Zero { file, sector } => put(file, &|bytes| {
            if let Some(sector) = bytes.get_mut(sector * 512..(sector + 1) * 512) {
                sector.fill(0);
            }
        }),
        Harm::Cut { file, at } => put(file, &|bytes| bytes.truncate(at.index(bytes.len() + 1))),
        Harm::Forged { file, page, at, to } => put(file, &|bytes| {
            if let Some(header) = bytes.get_mut(page * PAGE..page * PAGE + 64) {
                header[*at] = *to;
                let crc = crc32c::crc32c(&header[..60]).to_le_bytes();
                header[60..].copy_from_slice(&crc);
            }
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_harm_leads_to_no_panic_and_no_other_content(
        harms in prop::collection::vec(harm(), 1..6),
        seal: bool,
    ) {
        let (storage, written) = if seal { sealed() } else { unsealed() };
        for harm in &harms {
            apply(&storage, harm);
        }
        if let Ok(driver) = Driver::open_with(storage, tiny(), Lsn::ZERO) {
            prop_assert!(written.starts_with(&driver.entries), "{} frames", driver.entries.len());
        }
    }
}

#[test]
fn a_lost_write_is_noticed_or_harmless() {
    damaged_writes(|nth| SimFaults {
        lose_write_at: Some(nth),
        ..SimFaults::default()
    });
}

#[test]
fn a_misdirected_write_is_noticed_or_harmless() {
    for offset in [0, PAGE as u64, 2 * PAGE as u64, 3 * PAGE as u64] {
        damaged_writes(|nth| SimFaults {
            misdirect_write_at: Some((nth, offset)),
            ..SimFaults::default()
        });
    }
}

/// Runs to a clean stop with one write gone wrong unnoticed, then opens again.
fn damaged_writes(faults: impl Fn(u64) -> SimFaults) {
    let mut refused = 0;
    for nth in 1.. {
        let storage = sim();
        drop(Driver::open_with(storage.clone(), tiny(), Lsn::ZERO).unwrap());
        storage.set_faults(faults(nth));
        let mut driver = Driver::open_with(storage.clone(), tiny(), Lsn::ZERO).unwrap();
        for n in 0..6 {
            driver.maintain().unwrap();
            driver.append(&payload(n, 300)).unwrap();
            driver.commit_all().unwrap();
        }
        driver.settle().unwrap();
        let written = driver.entries.clone();
        let mut out = Vec::new();
        for (lsn, _, payload) in &written {
            if driver.log.read(*lsn, &mut out).is_ok() {
                assert_eq!(out, *payload, "write {nth}");
            }
        }
        drop(driver);
        if storage.counts().writes < nth {
            break;
        }
        storage.restart();
        if open(&storage, &written, &format!("write {nth}")) == Met::Refused {
            refused += 1;
        }
    }
    assert!(refused > 0, "some of the writes matter");
}
