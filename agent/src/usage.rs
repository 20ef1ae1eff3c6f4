//! Adds up what a job uses of its machine, one sample after the other. Needs the same memory for a job of any length.

use std::time::Duration;

use domain::state::{USAGE_POINTS, Usage, smaller_vcpus};

/// A part of a chart lasts this long at first.
const FIRST_PART: u64 = 1000;

/// The least time that counts as a peak of the CPU. The kernel counts in hundredths of a second, so that a few of them say nothing.
const SHORTEST_PEAK: u64 = 500;

/// The longest job that a [`Usage`] has room for, in milliseconds.
const LONGEST: u64 = u32::MAX as u64 * 1000;

/// What the machine has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u32,
}

/// What the machine uses at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Time since a moment that is the same for all samples.
    pub(crate) at: Duration,
    /// How long all vCPUs together have worked since the boot.
    pub(crate) cpu: Duration,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u32,
    /// Bytes since the boot.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// The sums over the samples of a job so far.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    capacity: Capacity,
    last: Sample,
    whole: Part,
    /// In thousandths of a vCPU.
    cpu_peak: u64,
    /// As [`Usage::cpu_beyond`], in millionths of a second of one vCPU.
    beyond: Vec<u128>,
    memory_peak_mib: u32,
    disk_peak_mib: u32,
    received: u64,
    sent: u64,
    chart: Chart,
}

/// The sums over a part of a job.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    milliseconds: u64,
    /// In millionths of a second of one vCPU.
    cpu: u128,
    /// MiB times milliseconds.
    memory: u128,
}

/// Equal parts of the job, without gaps. Only the last one may be shorter.
#[derive(Debug, Clone)]
struct Chart {
    part_milliseconds: u64,
    parts: Vec<Part>,
}

/// The time between two samples. What was in use is constant in it.
#[derive(Debug, Clone, Copy)]
struct Interval {
    milliseconds: u64,
    /// In thousandths of a vCPU.
    cpu: u64,
    memory_mib: u32,
}

impl Meter {
    /// A job starts.
    pub(crate) fn start(capacity: Capacity, first: Sample) -> Self {
        let Capacity { vcpus, memory_mib, disk_mib } = capacity;
        let capacity = Capacity { vcpus: vcpus.max(1), memory_mib: memory_mib.max(1), disk_mib: disk_mib.max(1) };
        Self {
            capacity,
            last: first,
            whole: Part::default(),
            cpu_peak: 0,
            beyond: smaller_vcpus(capacity.vcpus).map(|_| 0).collect(),
            memory_peak_mib: first.memory_mib.min(capacity.memory_mib),
            disk_peak_mib: first.disk_mib.min(capacity.disk_mib),
            received: 0,
            sent: 0,
            chart: Chart { part_milliseconds: FIRST_PART, parts: Vec::new() },
        }
    }

    /// Adds the next sample. It may come late: what was in use is averaged over the time since the last one. The kernel's counters
    /// may go backwards, for example when a network interface is replaced; then nothing is added.
    pub(crate) fn add(&mut self, sample: Sample) {
        let memory_mib = sample.memory_mib.min(self.capacity.memory_mib);
        self.memory_peak_mib = self.memory_peak_mib.max(memory_mib);
        self.disk_peak_mib = self.disk_peak_mib.max(sample.disk_mib.min(self.capacity.disk_mib));
        let since = milliseconds(sample.at.saturating_sub(self.last.at));
        let milliseconds = since.min(LONGEST - self.whole.milliseconds);
        if milliseconds == 0 {
            return;
        }
        let worked = self::milliseconds(sample.cpu.saturating_sub(self.last.cpu));
        let vcpus = u64::from(self.capacity.vcpus) * 1000;
        let cpu = vcpus.min(worked.saturating_mul(1000) / since);
        self.received = self.received.saturating_add(sample.received.saturating_sub(self.last.received));
        self.sent = self.sent.saturating_add(sample.sent.saturating_sub(self.last.sent));
        self.last = sample;

        let interval = Interval { milliseconds, cpu, memory_mib };
        if milliseconds >= SHORTEST_PEAK {
            self.cpu_peak = self.cpu_peak.max(cpu);
        }
        for (smaller, beyond) in smaller_vcpus(self.capacity.vcpus).zip(&mut self.beyond) {
            *beyond += u128::from(cpu.saturating_sub(u64::from(smaller) * 1000)) * u128::from(milliseconds);
        }
        self.chart.add(self.whole.milliseconds, interval);
        self.whole.add(interval);
    }

    /// What the job has used until the last sample.
    pub(crate) fn usage(&self) -> Usage {
        let Capacity { vcpus, memory_mib, disk_mib } = self.capacity;
        let (cpu_mean, memory_mean) = self.whole.means().unwrap_or((0, self.memory_peak_mib.into()));
        Usage {
            seconds: at_most_u32(self.whole.milliseconds / 1000),
            vcpus,
            memory_mib,
            disk_mib,
            cpu_mean: at_most_u32(cpu_mean),
            // A job that was measured in short pieces only has its mean.
            cpu_peak: at_most_u32(cpu_mean.max(self.cpu_peak)),
            cpu_beyond: self.beyond.iter().map(|beyond| u64::try_from(beyond / 1000).unwrap_or(u64::MAX)).collect(),
            memory_mean_mib: at_most_u32(memory_mean),
            memory_peak_mib: self.memory_peak_mib,
            disk_peak_mib: self.disk_peak_mib,
            received_mib: at_most_u32(self.received >> 20),
            sent_mib: at_most_u32(self.sent >> 20),
            cpu_chart: self.chart.percents(u64::from(vcpus) * 1000, |(cpu, _)| cpu),
            memory_chart: self.chart.percents(memory_mib.into(), |(_, memory)| memory),
        }
    }
}

impl Part {
    fn add(&mut self, interval: Interval) {
        let Interval { milliseconds, cpu, memory_mib } = interval;
        self.cpu += u128::from(cpu) * u128::from(milliseconds);
        self.memory += u128::from(memory_mib) * u128::from(milliseconds);
        self.milliseconds += milliseconds;
    }

    fn with(self, other: Self) -> Self {
        Self {
            milliseconds: self.milliseconds + other.milliseconds,
            cpu: self.cpu + other.cpu,
            memory: self.memory + other.memory,
        }
    }

    /// The mean of the CPU in thousandths of a vCPU and of the memory in MiB, rounded down. None if it has no time.
    fn means(&self) -> Option<(u64, u64)> {
        let milliseconds = u128::from(self.milliseconds);
        let mean = |sum: u128| u64::try_from(sum.checked_div(milliseconds)?).ok();
        Some((mean(self.cpu)?, mean(self.memory)?))
    }
}

impl Chart {
    /// Adds an interval that begins at this time of the job, where the last one has ended.
    fn add(&mut self, mut from: u64, interval: Interval) {
        let until = from + interval.milliseconds;
        while until > self.part_milliseconds * USAGE_POINTS as u64 {
            self.parts =
                self.parts.chunks(2).map(|pair| pair.iter().copied().fold(Part::default(), Part::with)).collect();
            self.part_milliseconds *= 2;
        }
        while from < until {
            let number = from / self.part_milliseconds;
            let end = until.min((number + 1) * self.part_milliseconds);
            let inside = Interval { milliseconds: end - from, ..interval };
            match self.parts.get_mut(number as usize) {
                Some(part) => part.add(inside),
                None => {
                    let mut part = Part::default();
                    part.add(inside);
                    self.parts.push(part);
                }
            }
            from = end;
        }
    }

    /// The means of the parts in percent of the whole. Without the last part if it is shorter than half of the others.
    fn percents(&self, whole: u64, which: impl Fn((u64, u64)) -> u64) -> Vec<u8> {
        let percent = |part: &Part| (which(part.means()?) * 100).checked_div(whole)?.try_into().ok();
        let is_long = |part: &Part| part.milliseconds * 2 >= self.part_milliseconds;
        let shown = self.parts.iter().enumerate().filter(|(number, part)| *number == 0 || is_long(part));
        shown.map(|(_, part)| percent(part).unwrap_or(100).min(100)).collect()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn at_most_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    const MACHINE: Capacity = Capacity { vcpus: 4, memory_mib: 16_000, disk_mib: 40_000 };

    /// A sample at this time, with this many seconds of CPU since the boot.
    fn sample(at: f64, cpu: f64) -> Sample {
        Sample {
            at: Duration::from_secs_f64(at),
            cpu: Duration::from_secs_f64(cpu),
            memory_mib: 1000,
            disk_mib: 5000,
            received: 7 << 20,
            sent: 1 << 20,
        }
    }

    fn usage(samples: &[Sample]) -> Usage {
        let mut meter = Meter::start(MACHINE, samples[0]);
        samples[1..].iter().for_each(|sample| meter.add(*sample));
        let usage = meter.usage();
        assert_eq!(Usage::parse(&usage.text(), SignedDuration::from_secs(usage.seconds.into())), Ok(usage.clone()));
        usage
    }

    #[test]
    fn means_peaks_and_work_are_those_of_the_samples() {
        let big = Sample { memory_mib: 9000, disk_mib: 6000, received: 19 << 20, ..sample(12.0, 104.0) };
        let used = usage(&[sample(10.0, 100.0), sample(11.0, 100.5), big, sample(13.0, 105.0), sample(14.0, 105.0)]);
        assert_eq!((used.seconds, used.vcpus, used.memory_mib, used.disk_mib), (4, 4, 16_000, 40_000));
        assert_eq!((used.cpu_mean, used.cpu_peak), (1250, 3500));
        assert_eq!(used.cpu_beyond, [2500, 1500]);
        assert_eq!((used.memory_mean_mib, used.memory_peak_mib, used.disk_peak_mib), (3000, 9000, 6000));
        assert_eq!((used.received_mib, used.sent_mib), (12, 0));
        assert_eq!(used.cpu_chart, [12, 87, 25, 0]);
        assert_eq!(used.memory_chart, [6, 56, 6, 6]);
    }

    #[test]
    fn counters_that_go_backwards_add_nothing() {
        let smaller = Sample { received: 1 << 20, sent: 0, ..sample(1.0, 50.0) };
        let used = usage(&[sample(0.0, 100.0), smaller, Sample { received: 3 << 20, ..smaller }, sample(2.0, 50.5)]);
        assert_eq!((used.cpu_mean, used.cpu_peak, used.received_mib, used.sent_mib), (250, 500, 6, 1));
    }

    #[test]
    fn a_time_that_goes_backwards_or_stands_still_is_no_time() {
        let used = usage(&[sample(5.0, 1.0), sample(5.0, 2.0), sample(3.0, 3.0), sample(6.0, 4.0)]);
        assert_eq!((used.seconds, used.cpu_mean), (1, 3000));
    }

    #[test]
    fn missed_samples_are_averaged_over_their_time() {
        let used = usage(&[sample(0.0, 0.0), sample(1.0, 4.0), sample(11.0, 24.0)]);
        assert_eq!((used.seconds, used.cpu_mean, used.cpu_peak), (11, 2181, 4000));
        assert_eq!(used.cpu_chart, [100, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50]);
        assert_eq!(used.cpu_beyond, [13_000, 2000]);
    }

    #[test]
    fn a_job_shorter_than_a_second_or_than_a_sample_has_a_usage() {
        let used = usage(&[sample(0.0, 0.0), sample(0.3, 0.6)]);
        assert_eq!((used.seconds, used.cpu_mean, used.cpu_peak), (0, 2000, 2000));
        assert_eq!((used.memory_mean_mib, used.cpu_chart), (1000, vec![50]));
        let used = usage(&[sample(0.0, 0.0)]);
        assert_eq!((used.seconds, used.cpu_mean, used.memory_mean_mib, used.memory_peak_mib), (0, 0, 1000, 1000));
        assert!(used.cpu_chart.is_empty());
    }

    #[test]
    fn a_moment_at_the_end_is_neither_a_peak_nor_a_part_of_the_chart() {
        let used = usage(&[sample(0.0, 0.0), sample(1.0, 0.1), sample(1.01, 0.14)]);
        assert_eq!((used.cpu_peak, used.cpu_chart), (138, vec![2]));
    }

    #[test]
    fn a_job_of_twelve_hours_has_a_chart_of_equal_parts_in_the_same_memory() {
        let mut meter = Meter::start(MACHINE, sample(0.0, 0.0));
        for second in 1..=12 * 3600 {
            // The first half of the job uses one vCPU, the second three.
            let (at, later) = (f64::from(second), (f64::from(second) - 21_600.0).max(0.0));
            meter.add(sample(at, at + 2.0 * later));
            assert!(meter.chart.parts.len() <= USAGE_POINTS && meter.beyond.len() == 2);
        }
        let used = meter.usage();
        assert_eq!((used.seconds, used.cpu_mean, used.cpu_peak), (43_200, 2000, 3000));
        assert_eq!(used.cpu_beyond, [43_200_000, 21_600_000]);
        assert_eq!(used.cpu_chart, [[25; 10].as_slice(), &[47], &[75; 10]].concat());
    }

    fn samples() -> impl Strategy<Value = Sample> {
        let at = prop_oneof![0..100_000u64, 0..u64::MAX];
        let cpu = prop_oneof![0..400_000u64, 0..u64::MAX];
        let (memory, disk) = (prop_oneof![0..20_000u32, 0..u32::MAX], prop_oneof![0..50_000u32, 0..u32::MAX]);
        (at, cpu, memory, disk, any::<u64>(), any::<u64>()).prop_map(
            |(at, cpu, memory_mib, disk_mib, received, sent)| {
                let (at, cpu) = (Duration::from_millis(at), Duration::from_millis(cpu));
                Sample { at, cpu, memory_mib, disk_mib, received, sent }
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_says_the_report_is_read(
            samples in prop::collection::vec(samples(), 1..30),
            in_order in any::<bool>(),
            vcpus in prop_oneof![0..9u32, 0..1025u32],
            memory_mib in 0..=64u32 << 20,
            disk_mib in 0..=64u32 << 20,
        ) {
            let mut samples = samples;
            if in_order {
                samples.sort_by_key(|sample| sample.at);
            }
            let mut meter = Meter::start(Capacity { vcpus, memory_mib, disk_mib }, samples[0]);
            samples[1..].iter().for_each(|sample| meter.add(*sample));
            let usage = meter.usage();
            prop_assert_eq!(Usage::parse(&usage.text(), SignedDuration::from_secs(usage.seconds.into())), Ok(usage));
        }
    }
}
