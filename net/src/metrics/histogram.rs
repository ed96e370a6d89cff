//! Histograms of fixed buckets.

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistogramKind {
    Call,
    EndToEnd,
    WalCommit,
    RecordsPerCall,
}

/// Nanoseconds. From one fast fsync to the default timeout twice over; three
/// steps a decade, finer where the promises lie (2 s and 5 s).
const DURATION_BOUNDS: [u64; 20] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
];

/// Records. The largest batch any provider of ours takes is 10,000.
const RECORD_BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 10_000];

/// Beside the buckets: what is above the last bound, and the sum.
const CELLS_BESIDE_BUCKETS: usize = 2;

impl HistogramKind {
    pub(super) const ALL: [HistogramKind; 4] = [
        HistogramKind::Call,
        HistogramKind::EndToEnd,
        HistogramKind::WalCommit,
        HistogramKind::RecordsPerCall,
    ];

    pub(super) const CELLS_OF_ALL: usize = 3 * (DURATION_BOUNDS.len() + CELLS_BESIDE_BUCKETS)
        + RECORD_BOUNDS.len()
        + CELLS_BESIDE_BUCKETS;

    pub(super) fn name(self) -> &'static str {
        match self {
            HistogramKind::Call => "syncline_call_seconds",
            HistogramKind::EndToEnd => "syncline_end_to_end_seconds",
            HistogramKind::WalCommit => "syncline_wal_commit_seconds",
            HistogramKind::RecordsPerCall => "syncline_records_per_call",
        }
    }

    pub(super) fn help(self) -> &'static str {
        match self {
            HistogramKind::Call => "Time of a call to a provider",
            HistogramKind::EndToEnd => "Time from acceptance to the answer that settled it",
            HistogramKind::WalCommit => "Time of a write of the log, synced",
            HistogramKind::RecordsPerCall => "Records that one call carried",
        }
    }

    /// Cells of the kinds before it.
    pub(super) fn first_cell(self) -> usize {
        HistogramKind::ALL
            .into_iter()
            .take_while(|kind| *kind != self)
            .map(HistogramKind::cells)
            .sum()
    }

    pub(super) fn cells(self) -> usize {
        self.bounds().len() + CELLS_BESIDE_BUCKETS
    }

    /// The bucket of `value`; a bound belongs to the bucket it ends.
    pub(super) fn bucket(self, value: u64) -> usize {
        self.bounds().partition_point(|bound| *bound < value)
    }

    fn bounds(self) -> &'static [u64] {
        match self {
            HistogramKind::RecordsPerCall => &RECORD_BOUNDS,
            _ => &DURATION_BOUNDS,
        }
    }

    /// A bound or sum as the metric's unit.
    fn scale(self, value: u64) -> f64 {
        match self {
            HistogramKind::RecordsPerCall => value as f64,
            _ => value as f64 / 1e9,
        }
    }
}

/// A histogram added up, as Prometheus wants it.
#[derive(Debug, PartialEq)]
pub(super) struct Totals {
    /// Each bound with the count of what is at or below it.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum: f64,
}

impl Totals {
    /// Of the kind's cells: buckets, what is above them, the sum.
    pub(super) fn of(kind: HistogramKind, cells: &[u64]) -> Totals {
        let bounds = kind.bounds();
        let mut count = 0u64;
        let buckets = bounds
            .iter()
            .zip(cells)
            .map(|(bound, cell)| {
                count += cell;
                (kind.scale(*bound), count)
            })
            .collect();
        let count = count + cells[bounds.len()];
        Totals {
            buckets,
            count,
            sum: kind.scale(cells[bounds.len() + 1]),
        }
    }
}
