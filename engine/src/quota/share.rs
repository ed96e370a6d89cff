//! Who gets how much of what is there: equal shares up to demand, the rest in weighted turns.

use std::collections::BTreeMap;

use super::classes::CostClass;

/// What one shard asks for calls of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim<'a> {
    pub(super) shard: usize,
    pub(super) class: CostClass,
    pub(super) permits: u32,
    /// Records behind the permits: the fullest batches come first when permits are scarce.
    pub(super) records: u32,
    /// Tokens of each pool that one permit takes.
    pub(super) costs: &'a [u32],
}

/// Divides permits over claims, remembering who was passed over.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Smooth weighted round robin: each turn adds everyone's weight to their credit, and who
    /// is served pays the sum of the weights.
    credits: BTreeMap<(usize, CostClass), i64>,
    /// Tokens that others took of a pool which had too few for one permit of this claim.
    /// At the price of a permit the claim saves: others leave the pool alone until it is served.
    passed: BTreeMap<(usize, CostClass), u64>,
}

impl Sharing {
    /// What each claim gets; never more than it asks for, nor than `tokens` of the pools last.
    /// Leaves in `tokens` what nobody got and nobody saves for. `reach` is the most that each
    /// pool could have to lend: nobody saves for what is beyond that.
    pub(super) fn divide(
        &mut self,
        tokens: &mut [u64],
        reach: &[u64],
        claims: &[Claim<'_>],
    ) -> Vec<u32> {
        self.forget_all_but(claims);
        let mut shares = vec![0; claims.len()];
        let short: Vec<usize> = (0..claims.len())
            .filter(|&i| claims[i].permits > 0 && !claims[i].is_affordable(tokens))
            .collect();
        let savers = self.savers(reach, claims);
        serve(&savers, tokens, claims, &mut shares);
        save(&savers, tokens, claims, &short);
        let before = tokens.to_vec();
        // Water-filling: every pass satisfies a claim, or leaves less than a permit each.
        loop {
            let thirsty: Vec<usize> = (0..claims.len())
                .filter(|&i| shares[i] < claims[i].permits && claims[i].is_affordable(tokens))
                .collect();
            if thirsty.is_empty() {
                break;
            }
            let each = permits_each(tokens, claims, &thirsty);
            if each == 0 {
                self.take_turns(tokens, &thirsty, claims, &mut shares);
                continue;
            }
            for index in thirsty {
                let more = each.min(claims[index].permits - shares[index]);
                shares[index] += more;
                claims[index].pay(tokens, more);
            }
        }
        self.note_passed(&before, tokens, claims, &short);
        for (claim, _) in claims.iter().zip(&shares).filter(|(_, share)| **share > 0) {
            self.passed.remove(&claim.claimant());
        }
        shares
    }

    /// Claims for which others took the price of a permit, the most passed over first.
    fn savers(&self, reach: &[u64], claims: &[Claim<'_>]) -> Vec<usize> {
        let mut savers: Vec<(u64, usize)> = (0..claims.len())
            .filter(|&index| claims[index].permits > 0 && claims[index].is_affordable(reach))
            .filter_map(|index| {
                let passed = *self.passed.get(&claims[index].claimant())?;
                (passed >= u64::from(claims[index].price())).then_some((passed, index))
            })
            .collect();
        savers.sort_unstable_by_key(|&(passed, index)| (std::cmp::Reverse(passed), index));
        savers.into_iter().map(|(_, index)| index).collect()
    }

    fn note_passed(
        &mut self,
        before: &[u64],
        tokens: &[u64],
        claims: &[Claim<'_>],
        short: &[usize],
    ) {
        for &index in short {
            let claim = &claims[index];
            let pools = before.iter().zip(tokens).zip(claim.costs);
            let taken = pools
                .filter(|((before, _), cost)| **cost > 0 && **before < u64::from(**cost))
                .map(|((before, left), _)| before - left)
                .max();
            if let Some(taken) = taken.filter(|taken| *taken > 0) {
                let passed = self.passed.entry(claim.claimant()).or_insert(0);
                *passed = passed.saturating_add(taken);
            }
        }
    }

    /// Hands out what is less than a permit for each, one each at most.
    fn take_turns(
        &mut self,
        tokens: &mut [u64],
        thirsty: &[usize],
        claims: &[Claim<'_>],
        shares: &mut [u32],
    ) {
        let sum: i64 = thirsty.iter().map(|&i| claims[i].weight()).sum();
        let mut waiting = thirsty.to_vec();
        loop {
            waiting.retain(|&i| claims[i].is_affordable(tokens));
            if waiting.is_empty() {
                return;
            }
            for &index in thirsty {
                let credit = self.credits.entry(claims[index].claimant()).or_insert(0);
                // Bounded, so that one who lost its weight does not pay for long.
                *credit = (*credit + claims[index].weight()).clamp(-sum, sum);
            }
            let next = (0..waiting.len()).max_by_key(|&at| {
                let claim = &claims[waiting[at]];
                let credit = self.credits.get(&claim.claimant()).copied();
                (
                    credit.unwrap_or(0),
                    claim.records,
                    std::cmp::Reverse(waiting[at]),
                )
            });
            let Some(next) = next else { return };
            let index = waiting.swap_remove(next);
            let credit = self.credits.entry(claims[index].claimant()).or_insert(0);
            *credit -= sum;
            shares[index] += 1;
            claims[index].pay(tokens, 1);
        }
    }

    /// Who asks for nothing has no credit and was not passed over.
    fn forget_all_but(&mut self, claims: &[Claim<'_>]) {
        let asks = |who: &(usize, CostClass)| {
            let claim = claims.iter().find(|claim| claim.claimant() == *who);
            claim.is_some_and(|claim| claim.permits > 0)
        };
        self.credits.retain(|who, _| asks(who));
        self.passed.retain(|who, _| asks(who));
    }
}

impl Claim<'_> {
    /// Whether the pools have the tokens of one permit.
    pub(super) fn is_affordable(&self, tokens: &[u64]) -> bool {
        let pools = tokens.iter().zip(self.costs);
        pools
            .into_iter()
            .all(|(tokens, cost)| *tokens >= u64::from(*cost))
    }

    fn pay(&self, tokens: &mut [u64], permits: u32) {
        for (tokens, &cost) in tokens.iter_mut().zip(self.costs) {
            *tokens -= u64::from(cost) * u64::from(permits);
        }
    }

    /// Who is passed over or served.
    pub(super) fn claimant(&self) -> (usize, CostClass) {
        (self.shard, self.class)
    }

    /// Its dearest cost.
    fn price(&self) -> u32 {
        self.costs.iter().copied().max().unwrap_or(0)
    }

    /// Grows with the logarithm of the records: a shard with a thousand times the backlog gets
    /// some ten times the scarce permits, and no one waits more than 32 turns of each other.
    fn weight(&self) -> i64 {
        let records = self.records.max(self.permits).max(1);
        i64::from(u32::BITS - records.leading_zeros())
    }
}

/// One permit first for each claim that has saved up its price.
fn serve(savers: &[usize], tokens: &mut [u64], claims: &[Claim<'_>], shares: &mut [u32]) {
    for &index in savers {
        if claims[index].is_affordable(tokens) {
            claims[index].pay(tokens, 1);
            shares[index] = 1;
        }
    }
}

/// Sets aside for those who are still short what there is of their price.
fn save(savers: &[usize], tokens: &mut [u64], claims: &[Claim<'_>], short: &[usize]) {
    for index in savers.iter().filter(|index| short.contains(index)) {
        for (tokens, &cost) in tokens.iter_mut().zip(claims[*index].costs) {
            *tokens = tokens.saturating_sub(u64::from(cost));
        }
    }
}

/// Permits that every one of `thirsty` can have at once.
fn permits_each(tokens: &[u64], claims: &[Claim<'_>], thirsty: &[usize]) -> u32 {
    let pools = tokens.iter().enumerate().filter_map(|(pool, tokens)| {
        let one_each: u64 = thirsty
            .iter()
            .map(|&i| u64::from(claims[i].costs[pool]))
            .sum();
        tokens.checked_div(one_each)
    });
    let each = pools.min().unwrap_or(u64::MAX);
    u32::try_from(each).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY_REACH: [u64; 2] = [u64::MAX; 2];

    fn claim(shard: usize, permits: u32, costs: &[u32]) -> Claim<'_> {
        Claim {
            shard,
            class: CostClass::ANY,
            permits,
            records: 0,
            costs,
        }
    }

    fn check(available: u64, permits: &[u32], expected: &[u32]) {
        let claims: Vec<Claim<'_>> = permits
            .iter()
            .enumerate()
            .map(|(shard, &permits)| claim(shard, permits, &[1]))
            .collect();
        let shares = Sharing::default().divide(&mut [available], &ANY_REACH, &claims);
        assert_eq!(shares, expected, "{available} over {permits:?}");
    }

    #[test]
    fn small_demands_are_met_and_large_ones_share_the_rest_equally() {
        check(100, &[10, 20, 30], &[10, 20, 30]);
        check(100, &[1000, 10, 1000], &[45, 10, 45]);
        check(0, &[5, 5], &[0, 0]);
        check(7, &[0, 0], &[0, 0]);
        check(u64::MAX, &[u32::MAX, 1], &[u32::MAX, 1]);
    }

    #[test]
    fn a_scarce_permit_goes_to_the_shard_that_wants_most() {
        check(1, &[1, 200, 3], &[0, 1, 0]);
        check(2, &[1, 200, 300], &[0, 1, 1]);
    }

    #[test]
    fn the_remainder_goes_round_over_time() {
        let mut sharing = Sharing::default();
        let claims = [0, 1, 2].map(|shard| Claim {
            records: 10,
            ..claim(shard, 10, &[1])
        });
        let mut sum = [0; 3];
        for _ in 0..300 {
            for (sum, share) in sum
                .iter_mut()
                .zip(sharing.divide(&mut [4], &ANY_REACH, &claims))
            {
                *sum += share;
            }
        }
        assert_eq!(sum, [400, 400, 400]);
    }

    #[test]
    fn a_shard_with_little_demand_is_not_starved_by_a_flood() {
        let mut sharing = Sharing::default();
        let flood = Claim {
            records: 200_000_000,
            ..claim(0, 1_000_000, &[1])
        };
        let little = Claim {
            records: 1,
            ..claim(1, 1, &[1])
        };
        let served: u32 = (0..290)
            .map(|_| sharing.divide(&mut [1], &ANY_REACH, &[flood, little])[1])
            .sum();
        assert_eq!(served, 10, "one in 29: weights 28 and 1");
    }

    #[test]
    fn an_empty_pool_holds_back_only_the_calls_that_count_in_it() {
        let claims = [
            claim(0, 50, &[0, 1]),
            claim(1, 50, &[1, 0]),
            claim(2, 50, &[1, 0]),
        ];
        let mut tokens = [30, 0];
        let shares = Sharing::default().divide(&mut tokens, &ANY_REACH, &claims);
        assert_eq!(shares, [0, 15, 15]);
        assert_eq!(tokens, [0, 0]);
    }

    #[test]
    fn a_dear_call_gets_its_tokens_though_cheap_ones_always_wait() {
        let mut sharing = Sharing::default();
        let claims = [claim(0, 1, &[20]), claim(1, 1_000_000, &[1])];
        let mut available = 0;
        let (mut dear, mut cheap) = (0, 0);
        for _ in 0..400 {
            available += 1;
            let mut tokens = [available];
            let shares = sharing.divide(&mut tokens, &ANY_REACH, &claims);
            dear += shares[0];
            cheap += shares[1];
            available -= u64::from(shares[0] * 20 + shares[1]);
        }
        assert_eq!(dear, 10, "half of the tokens");
        assert!((180..=220).contains(&cheap), "{cheap}");
    }

    #[test]
    fn nothing_is_saved_for_a_call_that_the_pool_cannot_pay_for_now() {
        let mut sharing = Sharing::default();
        let claims = [claim(0, 1, &[20]), claim(1, 1_000_000, &[1])];
        for _ in 0..100 {
            let shares = sharing.divide(&mut [1], &[19], &claims);
            assert_eq!(shares, [0, 1]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn nothing_is_given_twice_and_nothing_is_left_that_someone_could_use(
            pools in proptest::collection::vec(0..200_u64, 2),
            asked in proptest::collection::vec((0..50_u32, 0..4_u32, 0..4_u32), 1..8),
        ) {
            let costs: Vec<[u32; 2]> = asked.iter().map(|(_, a, b)| [*a, *b]).collect();
            let claims: Vec<Claim<'_>> = asked
                .iter()
                .zip(&costs)
                .enumerate()
                .map(|(shard, ((permits, ..), costs))| claim(shard, *permits, costs))
                .collect();
            let mut tokens = pools.clone();
            let shares = Sharing::default().divide(&mut tokens, &ANY_REACH, &claims);
            for pool in 0..2 {
                let paid: u64 = (0..claims.len())
                    .map(|i| u64::from(shares[i] * costs[i][pool]))
                    .sum();
                prop_assert_eq!(pools[pool] - tokens[pool], paid);
            }
            for (claim, share) in claims.iter().zip(&shares) {
                prop_assert!(share <= &claim.permits);
                prop_assert!(*share == claim.permits || !claim.is_affordable(&tokens));
            }
        }
    }
}
