//! Who gets how much of what is there: equal shares up to demand, the rest in weighted turns.

/// What one shard asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) permits: u32,
    /// Records behind the permits: the fullest batches come first when permits are scarce.
    pub(super) records: u32,
}

/// Divides permits over shards, remembering who was passed over.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Smooth weighted round robin: each turn adds everyone's weight to their credit, and who
    /// is served pays the sum of the weights.
    credits: Vec<i64>,
}

impl Sharing {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            credits: vec![0; shards],
        }
    }

    /// What each shard gets; never more than it asks for, nor more than `available` in all.
    pub(super) fn divide(&mut self, available: u64, demands: &[Demand]) -> Vec<u32> {
        let mut shares = vec![0; demands.len()];
        let mut left = available;
        // Water-filling: every pass either satisfies a shard or leaves less than one each.
        loop {
            let thirsty = (0..demands.len()).filter(|&i| shares[i] < demands[i].permits);
            let thirsty: Vec<usize> = thirsty.collect();
            let each = match thirsty.len() as u64 {
                0 => break,
                count => u32::try_from(left / count).unwrap_or(u32::MAX),
            };
            if each == 0 {
                self.take_turns(left, &thirsty, demands, &mut shares);
                break;
            }
            for shard in thirsty {
                let more = each.min(demands[shard].permits - shares[shard]);
                shares[shard] += more;
                left -= u64::from(more);
            }
        }
        for (credit, demand) in self.credits.iter_mut().zip(demands) {
            if demand.permits == 0 {
                *credit = 0;
            }
        }
        shares
    }

    /// Hands out fewer permits than there are thirsty shards, one each at most.
    fn take_turns(&mut self, left: u64, thirsty: &[usize], demands: &[Demand], shares: &mut [u32]) {
        let sum: i64 = thirsty.iter().map(|&i| demands[i].weight()).sum();
        let mut waiting = thirsty.to_vec();
        for _ in 0..left {
            for &shard in thirsty {
                // Bounded, so that one who lost its weight does not pay for long.
                let credit = self.credits[shard] + demands[shard].weight();
                self.credits[shard] = credit.clamp(-sum, sum);
            }
            let next = (0..waiting.len()).max_by_key(|&i| {
                let shard = waiting[i];
                let records = demands[shard].records;
                (self.credits[shard], records, std::cmp::Reverse(shard))
            });
            let Some(next) = next else { return };
            let shard = waiting.swap_remove(next);
            self.credits[shard] -= sum;
            shares[shard] += 1;
        }
    }
}

impl Demand {
    /// Grows with the logarithm of the records: a shard with a thousand times the backlog gets
    /// some ten times the scarce permits, and no one waits more than 32 turns of each other.
    fn weight(self) -> i64 {
        let records = self.records.max(self.permits).max(1);
        i64::from(u32::BITS - records.leading_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(available: u64, permits: &[u32], expected: &[u32]) {
        let demands: Vec<Demand> = permits
            .iter()
            .map(|&permits| Demand {
                permits,
                records: 0,
            })
            .collect();
        let shares = Sharing::new(permits.len()).divide(available, &demands);
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
        let mut sharing = Sharing::new(3);
        let demands = [Demand {
            permits: 10,
            records: 10,
        }; 3];
        let mut sum = [0; 3];
        for _ in 0..300 {
            for (sum, share) in sum.iter_mut().zip(sharing.divide(4, &demands)) {
                *sum += share;
            }
        }
        assert_eq!(sum, [400, 400, 400]);
    }

    #[test]
    fn a_shard_with_little_demand_is_not_starved_by_a_flood() {
        let mut sharing = Sharing::new(2);
        let flood = Demand {
            permits: 1_000_000,
            records: 200_000_000,
        };
        let little = Demand {
            permits: 1,
            records: 1,
        };
        let served: u32 = (0..290)
            .map(|_| sharing.divide(1, &[flood, little])[1])
            .sum();
        assert_eq!(served, 10, "one in 29: weights 28 and 1");
    }
}
