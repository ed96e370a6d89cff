//! Tokens are asked for once for all threads, kept before they are used, and never shown.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod provider;
mod stage;

use std::time::Duration;

use engine::provider::{NotSent, SendFailure};
use syncline_net::auth::{Grant, KeptToken, SigningKey, SigningKeyError, TokenStanding};

use provider::Provider;
use stage::{Memory, Stage, client, refresh};

const THREADS: usize = 4;
const CALLS: usize = 40;

#[test]
fn a_storm_of_401s_on_all_threads_costs_one_refresh() {
    let provider = Provider::start("r-1");
    let stage = Stage::start(&provider, refresh("r-1"), Memory::default());
    assert_eq!(stage.call().unwrap().status, 200);
    assert_eq!(provider.asked(), 1);

    provider.expire();
    let statuses = stage.call_from_threads(THREADS, CALLS);
    assert_eq!(statuses, vec![200; THREADS * CALLS]);
    assert_eq!(
        provider.asked(),
        2,
        "one for the first token, one for the storm"
    );
    assert!(
        provider.refused() > 1,
        "more than one call met the old token"
    );
}

#[test]
fn a_new_refresh_token_is_durable_before_its_access_token_is_used() {
    let memory = Memory::default();
    let provider = Provider::start("r-1");
    provider.watch({
        let memory = memory.clone();
        move |bearer| {
            let kept = memory
                .kept()
                .expect("a token is kept before a call carries one");
            assert_eq!(kept.access_token, bearer);
            assert!(kept.refresh_token.is_some_and(|token| token != "r-1"));
        }
    });
    let stage = Stage::start(&provider, refresh("r-1"), memory);
    for _ in 0..3 {
        assert_eq!(stage.call().unwrap().status, 200);
        provider.expire();
    }
    assert_eq!(
        provider.asked(),
        3,
        "each with the refresh token of the one before"
    );
}

#[test]
fn a_new_refresh_token_that_cannot_be_kept_is_not_used_and_not_lost() {
    let memory = Memory::default();
    memory.fail_next();
    let provider = Provider::start("r-1");
    let stage = Stage::start(&provider, refresh("r-1"), memory.clone());
    let failure = stage.call().unwrap_err();
    assert!(
        matches!(failure, SendFailure::BeforeSent { .. }),
        "{failure}"
    );
    assert_eq!((provider.asked(), provider.calls()), (1, 0));

    stage.until(TokenStanding::Valid);
    assert_eq!(stage.call().unwrap().status, 200);
    assert_eq!(
        provider.asked(),
        1,
        "the token that came is kept, not asked for again"
    );
    assert!(memory.kept().is_some());
}

#[test]
fn a_kept_token_is_used_by_the_next_run() {
    let memory = Memory::default();
    let provider = Provider::start("r-1");
    let first = Stage::start(&provider, refresh("r-1"), memory.clone());
    assert_eq!(first.call().unwrap().status, 200);
    drop(first);

    let second = Stage::start(&provider, refresh("r-1"), memory.clone());
    assert_eq!(second.call().unwrap().status, 200);
    assert_eq!(provider.asked(), 1);
    provider.expire();
    assert_eq!(
        second.call().unwrap().status,
        200,
        "with the rotated refresh token"
    );
    drop(second);

    // Another consent: what was kept is not for it.
    let other = Stage::start(&provider, refresh("r-other"), memory);
    let failure = other.call().unwrap_err();
    assert_eq!(cause(&failure), NotSent::Unauthorized);
}

/// Whether an account goes on after a crash that follows any of its tokens.
fn outlives_crashes(memory: &Memory) -> bool {
    let provider = Provider::start("r-1");
    (0..3).all(|_| {
        let stage = Stage::start(&provider, refresh("r-1"), memory.clone());
        provider.expire();
        // Dropped with what is kept by then: a crash looks the same to the next run.
        stage.call().is_ok_and(|reply| reply.status == 200)
    })
}

#[test]
fn a_rotated_token_outlives_a_crash_and_one_kept_too_late_does_not() {
    assert!(outlives_crashes(&Memory::default()));
    assert!(!outlives_crashes(&Memory::late()), "the check sees it");
}

#[test]
fn refused_credentials_stop_calls_before_they_leave() {
    let provider = Provider::start("r-1");
    let stage = Stage::start(&provider, refresh("r-wrong"), Memory::default());
    let failure = stage.call().unwrap_err();
    assert_eq!(cause(&failure), NotSent::Unauthorized);
    assert!(
        failure.to_string().contains("400 invalid_grant"),
        "{failure}"
    );
    assert_eq!(stage.standing(), TokenStanding::Refused);
    for _ in 0..20 {
        assert_eq!(cause(&stage.call().unwrap_err()), NotSent::Unauthorized);
    }
    assert_eq!((provider.asked(), provider.calls()), (1, 0));
}

#[test]
fn a_refused_token_is_renewed_and_the_caller_told_to_call_again() {
    let provider = Provider::start("r-1");
    provider.accept_nothing();
    let stage = Stage::start(&provider, refresh("r-1"), Memory::default());
    for calls in 1..=2 {
        let refused = stage.call_once();
        assert_eq!(refused, Err(SendFailure::TokenRefused));
        assert_eq!(provider.calls(), calls, "one request a call");
    }
    assert!(provider.asked() >= 2, "the second call had another token");
}

#[test]
fn no_failure_and_no_state_shows_a_secret() {
    let provider = Provider::start("r-1");
    provider.quote_requests();
    let memory = Memory::default();
    let stage = Stage::start(&provider, refresh("r-s3cret"), memory);
    let failure = stage.call().unwrap_err();
    let shown = format!("{failure} {failure:?} {:?} {:?}", stage.cell(), client());
    let shown = shown + &stage.shown;
    assert!(!shown.contains("s3cret"), "{shown}");
    let kept = KeptToken {
        grant: String::new(),
        access_token: "s3cret".to_owned(),
        refresh_token: Some("s3cret".to_owned()),
        asked_at_ms: 0,
        lifetime_s: None,
    };
    assert!(!format!("{kept:?}").contains("s3cret"));
}

#[test]
fn an_endpoint_that_is_down_is_no_refusal() {
    let provider = Provider::start("r-1");
    provider.answer_with(503);
    let stage = Stage::start(&provider, refresh("r-1"), Memory::default());
    assert_eq!(cause(&stage.call().unwrap_err()), NotSent::Connect);
    assert_eq!(stage.standing(), TokenStanding::Failing);
    provider.answer_with(200);
    stage.until(TokenStanding::Valid);
    assert_eq!(stage.call().unwrap().status, 200);
}

#[test]
fn a_token_is_renewed_ahead_of_its_end_without_a_call() {
    let provider = Provider::start("r-1");
    provider.lifetime(Duration::from_secs(1));
    let stage = Stage::start(&provider, refresh("r-1"), Memory::default());
    assert_eq!(stage.call().unwrap().status, 200);
    provider.until_asked(2);
    assert_eq!(stage.call().unwrap().status, 200);
    assert_eq!(provider.refused(), 0);
}

#[test]
fn an_assertion_is_signed_by_either_form_of_the_key() {
    for pem in [include_str!("pkcs8.pem"), include_str!("pkcs1.pem")] {
        let provider = Provider::start("r-1");
        let grant = Grant::JwtBearer {
            client_id: "app".to_owned(),
            username: "me@example.com".to_owned(),
            audience: "https://login.example.com".to_owned(),
            key: Box::new(SigningKey::from_pem(pem).unwrap()),
        };
        let stage = Stage::start(&provider, grant, Memory::default());
        assert_eq!(stage.call().unwrap().status, 200);
        let claims = provider.assertion(include_bytes!("public.der"));
        assert_eq!(claims["iss"], "app");
        assert_eq!(claims["sub"], "me@example.com");
        assert_eq!(claims["aud"], "https://login.example.com");
        let left = claims["exp"].as_i64().unwrap() - stage::clock().wall.0 / 1000;
        assert!((170..=180).contains(&left), "{left} s");
    }
}

#[test]
fn what_is_no_rsa_key_is_refused() {
    let cut = &include_str!("pkcs8.pem")[..400];
    for (pem, error) in [
        ("", SigningKeyError::NotPem),
        ("s3cret", SigningKeyError::NotPem),
        (cut, SigningKeyError::NotPem),
    ] {
        assert_eq!(SigningKey::from_pem(pem).err(), Some(error), "{pem}");
    }
    let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(
        SigningKey::from_pem(&elliptic).err(),
        Some(SigningKeyError::NotRsa)
    );
}

fn cause(failure: &SendFailure) -> NotSent {
    match failure {
        SendFailure::BeforeSent { cause, .. } => *cause,
        SendFailure::AfterSent { .. } | SendFailure::TokenRefused => panic!("{failure}"),
    }
}
