//! The endpoints of an account that fail: a breaker each, so that the others go on.

use std::sync::Arc;
use std::time::Duration;

use super::dice::Dice;
use super::gate::{BreakerView, Health, TroubleReport};
use super::limits::HoldSettings;
use super::message::{EndpointWord, Gate, ShardId, Trouble};
use crate::time::Mono;

/// Endpoints of an account that fail at a time and have a breaker of their own. An account has
/// tens of objects; the failures of one more count for the account as a whole.
pub const ENDPOINTS_MAX: usize = 32;

/// Those endpoints of one account that are not known to be well. Of the others nothing is kept.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    ailing: Vec<Ailing>,
}

#[derive(Debug)]
struct Ailing {
    name: Arc<str>,
    health: Health,
    /// By shard: the gate it was told last.
    told: Vec<Option<Gate>>,
    /// Shards that have something for it and would probe.
    asking: Vec<ShardId>,
}

/// An endpoint that fails, or did just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// What it is called: an object, and the kind of call where that fails apart.
    pub endpoint: Arc<str>,
    /// Where its breaker stands.
    pub breaker: BreakerView,
}

impl Endpoints {
    /// Takes in what a shard says of an endpoint. False: there is no place for one more, and its
    /// failure is the account's.
    pub(super) fn hear(
        &mut self,
        now: Mono,
        dice: &mut Dice,
        settings: HoldSettings,
        (from, name): (ShardId, &Arc<str>),
        word: EndpointWord,
    ) -> bool {
        let known = self.ailing.iter().position(|known| known.name == *name);
        let at = match (known, word) {
            (Some(at), _) => at,
            (None, EndpointWord::Failed { .. }) if self.ailing.len() == ENDPOINTS_MAX => {
                return false;
            }
            (None, EndpointWord::Failed { .. }) => {
                self.ailing.push(Ailing {
                    name: Arc::clone(name),
                    health: Health::new(settings),
                    told: Vec::new(),
                    asking: Vec::new(),
                });
                self.ailing.len() - 1
            }
            (None, _) => return true,
        };
        self.ailing[at].hear(now, dice, from, word);
        true
    }

    pub(super) fn reconfigure(&mut self, settings: HoldSettings) {
        for ailing in &mut self.ailing {
            ailing.health.reconfigure(settings);
        }
    }

    /// A shard starts a life: it knows of no endpoint, and does not probe any more.
    pub(super) fn connect(&mut self, now: Mono, shard: ShardId) {
        for ailing in &mut self.ailing {
            ailing.asking.retain(|asking| *asking != shard);
            ailing.health.on_probe_unused(now, shard);
            if let Some(told) = ailing.told.get_mut(usize::from(shard.0)) {
                *told = None;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.ailing.clear();
    }

    /// Lets time pass; while the account may be called, whoever asks for it first probes.
    pub(super) fn tick(&mut self, now: Mono, may_probe: bool, call_timeout: Duration) {
        for ailing in &mut self.ailing {
            ailing.health.tick(now);
            if may_probe && ailing.health.seeks_prober() {
                ailing.choose_prober(now, call_timeout);
            }
        }
    }

    /// What shards have to be told. An endpoint of which all know that it is well is forgotten.
    pub(super) fn news(&mut self, shards: &[ShardId]) -> Vec<(ShardId, Arc<str>, Gate)> {
        let mut news = Vec::new();
        for ailing in &mut self.ailing {
            for &shard in shards {
                let gate = ailing.health.gate(shard);
                let at = usize::from(shard.0);
                if ailing.told.len() <= at {
                    ailing.told.resize(at + 1, None);
                }
                if ailing.told[at] != Some(gate) {
                    ailing.told[at] = Some(gate);
                    news.push((shard, Arc::clone(&ailing.name), gate));
                }
            }
        }
        self.ailing.retain(|ailing| {
            !ailing.health.is_open() || ailing.health.breaker().failures_in_row > 0
        });
        news
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let ailing = self.ailing.iter();
        ailing.filter_map(|one| one.health.next_deadline()).min()
    }

    pub(super) fn views(&self) -> Vec<EndpointView> {
        let view = |ailing: &Ailing| EndpointView {
            endpoint: Arc::clone(&ailing.name),
            breaker: ailing.health.breaker(),
        };
        self.ailing.iter().map(view).collect()
    }
}

impl Ailing {
    fn hear(&mut self, now: Mono, dice: &mut Dice, from: ShardId, word: EndpointWord) {
        match word {
            EndpointWord::Failed {
                probe,
                last_success,
            } => {
                let report = TroubleReport {
                    trouble: Trouble::Failing,
                    probe,
                    last_success,
                };
                self.health.on_trouble(now, dice, from, report);
            }
            EndpointWord::Worked { probe } => {
                self.health.on_healthy(probe);
                // The shard reports once for each time it is told that the endpoint is suspect.
                if let Some(told) = self.told.get_mut(usize::from(from.0))
                    && *told == Some(Gate::Suspect)
                {
                    *told = None;
                }
            }
            EndpointWord::Asks => {
                if !self.asking.contains(&from) {
                    self.asking.push(from);
                }
            }
            EndpointWord::ProbeUnused => {
                self.asking.retain(|asking| *asking != from);
                self.health.on_probe_unused(now, from);
            }
        }
    }

    /// Not the one that probed last, while another asks: it may be stuck.
    fn choose_prober(&mut self, now: Mono, call_timeout: Duration) {
        let last = self.health.last_prober();
        let mut fresh = self.asking.iter();
        let fresh = fresh.position(|asking| Some(*asking) != last);
        let Some(at) = fresh.or((!self.asking.is_empty()).then_some(0)) else {
            return;
        };
        let prober = self.asking.remove(at);
        self.health.probe_by(now, prober, call_timeout);
        // Told again even when it was the prober before: one more call is meant.
        if let Some(told) = self.told.get_mut(usize::from(prober.0)) {
            *told = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);
    const TIMEOUT: Duration = Duration::from_secs(30);
    const FAILED: EndpointWord = EndpointWord::Failed {
        probe: false,
        last_success: None,
    };

    struct Rig {
        endpoints: Endpoints,
        dice: Dice,
        now: Mono,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                endpoints: Endpoints::default(),
                dice: Dice::new(1),
                now: Mono(1_000_000_000),
            }
        }

        fn hear(&mut self, from: ShardId, name: &str, word: EndpointWord) -> bool {
            let settings = HoldSettings::default();
            let name: Arc<str> = name.into();
            self.endpoints
                .hear(self.now, &mut self.dice, settings, (from, &name), word)
        }

        fn news(&mut self) -> Vec<(ShardId, Arc<str>, Gate)> {
            self.endpoints.tick(self.now, true, TIMEOUT);
            self.endpoints.news(&[A, B])
        }

        fn gate_told(&mut self, shard: ShardId) -> Option<Gate> {
            let news = self.news();
            let own = news.into_iter().rev().find(|(to, _, _)| *to == shard);
            own.map(|(_, _, gate)| gate)
        }

        fn pass_hold(&mut self) {
            self.now = self.endpoints.next_deadline().expect("it is held");
        }
    }

    #[test]
    fn five_failures_in_a_row_hold_an_endpoint_and_no_other() {
        let mut rig = Rig::new();
        for _ in 0..5 {
            assert!(rig.hear(A, "contacts", FAILED));
        }
        assert!(rig.hear(A, "deals", FAILED));
        let phases: Vec<_> = rig.endpoints.views();
        let open = |view: &&EndpointView| view.breaker.until.is_some();
        let open: Vec<_> = phases.iter().filter(open).collect();
        assert_eq!((open.len(), &*open[0].endpoint), (1, "contacts"));
    }

    #[test]
    fn a_success_between_starts_the_row_anew_and_the_well_are_forgotten() {
        let mut rig = Rig::new();
        for _ in 0..4 {
            rig.hear(A, "contacts", FAILED);
        }
        assert_eq!(rig.gate_told(B), Some(Gate::Suspect));
        rig.hear(B, "contacts", EndpointWord::Worked { probe: false });
        assert_eq!(rig.gate_told(A), Some(Gate::Open));
        assert_eq!(rig.endpoints.views(), []);
        for _ in 0..4 {
            rig.hear(A, "contacts", FAILED);
        }
        assert!(matches!(rig.gate_told(A), Some(Gate::Suspect)));
    }

    #[test]
    fn of_those_that_ask_one_probes_and_another_one_next_time() {
        let mut rig = Rig::new();
        for _ in 0..5 {
            rig.hear(A, "contacts", FAILED);
        }
        assert!(matches!(rig.gate_told(A), Some(Gate::Held { .. })));
        rig.pass_hold();
        assert!(!rig.news().iter().any(|(_, _, gate)| *gate == Gate::Probe));
        rig.hear(A, "contacts", EndpointWord::Asks);
        rig.hear(B, "contacts", EndpointWord::Asks);
        let probers = |news: &[(ShardId, Arc<str>, Gate)]| {
            let probers = news.iter().filter(|(_, _, gate)| *gate == Gate::Probe);
            probers.map(|(shard, _, _)| *shard).collect::<Vec<_>>()
        };
        assert_eq!(probers(&rig.news()), [A]);
        let probe = true;
        let failed = EndpointWord::Failed {
            probe,
            last_success: None,
        };
        rig.hear(A, "contacts", failed);
        rig.pass_hold();
        rig.hear(A, "contacts", EndpointWord::Asks);
        assert_eq!(
            probers(&rig.news()),
            [B],
            "it had asked and was passed over"
        );
        rig.hear(B, "contacts", EndpointWord::Worked { probe });
        assert_eq!(rig.gate_told(A), Some(Gate::Open));
        assert_eq!(rig.endpoints.views(), []);
    }

    #[test]
    fn a_probe_that_nobody_has_a_use_for_goes_to_whoever_asks_next() {
        let mut rig = Rig::new();
        for _ in 0..5 {
            rig.hear(A, "contacts", FAILED);
        }
        rig.pass_hold();
        rig.hear(A, "contacts", EndpointWord::Asks);
        assert_eq!(rig.gate_told(A), Some(Gate::Probe));
        rig.hear(A, "contacts", EndpointWord::ProbeUnused);
        rig.hear(B, "contacts", EndpointWord::Asks);
        assert_eq!(rig.gate_told(B), Some(Gate::Probe));
        rig.endpoints.connect(rig.now, B);
        rig.hear(A, "contacts", EndpointWord::Asks);
        assert_eq!(rig.gate_told(A), Some(Gate::Probe), "its life ended");
    }

    #[test]
    fn one_more_than_there_is_place_for_is_the_accounts() {
        let mut rig = Rig::new();
        for endpoint in 0..ENDPOINTS_MAX {
            assert!(rig.hear(A, &endpoint.to_string(), FAILED));
        }
        assert!(!rig.hear(A, "contacts", FAILED));
        assert!(rig.hear(A, "0", FAILED));
        assert!(rig.hear(A, "contacts", EndpointWord::Worked { probe: false }));
    }
}
