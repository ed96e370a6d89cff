//! Which `Idempotency-Key` a request carries.

use super::RequestDigest;

/// The keys one operation has used at one provider.
///
/// A provider that honours keys answers a known key with its old reply, whatever the new request
/// says. So other bytes under a key already sent would be dropped unseen, and the same bytes under
/// a new key would be done twice. The sequence goes with its operation into the log, before the
/// request leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeySequence {
    /// Keys used so far; 0 = nothing was sent yet.
    pub n: u32,
    /// What was sent under the newest key; meaningless while `n` is 0.
    pub last_digest: u64,
}

impl KeySequence {
    /// Takes the key for the request with this digest: the newest key again when it is the same
    /// request, else the next one.
    pub fn key_for(&mut self, operation_id: &str, digest: RequestDigest) -> String {
        if self.n == 0 || self.last_digest != digest.0 {
            // Wrapping back to a used key takes 2^32 different requests of one operation.
            self.n = self.n.saturating_add(1);
            self.last_digest = digest.0;
        }
        match self.n {
            1 => operation_id.to_owned(),
            n => format!("{operation_id}.{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RequestDigest = RequestDigest(1);
    const B: RequestDigest = RequestDigest(2);

    #[test]
    fn the_first_request_uses_the_operation_id() {
        assert_eq!(KeySequence::default().key_for("op", A), "op");
        // Even if its digest equals the value of an unused sequence.
        assert_eq!(KeySequence::default().key_for("op", RequestDigest(0)), "op");
    }

    #[test]
    fn the_same_request_again_keeps_its_key() {
        let mut keys = KeySequence::default();
        assert_eq!(keys.key_for("op", A), "op");
        assert_eq!(keys.key_for("op", A), "op");
        assert_eq!(keys.key_for("op", B), "op.2");
        assert_eq!(keys.key_for("op", B), "op.2");
    }

    #[test]
    fn going_back_to_older_bytes_takes_a_new_key() {
        let mut keys = KeySequence::default();
        keys.key_for("op", A);
        keys.key_for("op", B);
        assert_eq!(keys.key_for("op", A), "op.3");
    }
}
