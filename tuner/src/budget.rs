//! What changes may cost an engine: how often it may be restarted because of its rules, and how long it may be away. And
//! what they may cost all engines of the host together.

use std::time::Duration;

use plimsoll_trace::Stamp;
use plimsoll_trace::units::show_duration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rule::Cost;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// More changes than this are not remembered; the oldest are forgotten first.
const MOST_REMEMBERED: usize = 256;

/// An engine's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Restarts within any 60 minutes.
    pub restarts_per_hour: u32,
    /// Restarts within any 24 hours.
    pub restarts_per_day: u32,
    /// Time within any 60 minutes in which the engine does not serve because of changes.
    pub downtime_per_hour: Duration,
    /// How much all rungs that are taken may cost in quality together, 0..1.
    pub quality_loss_max: f64,
    /// How long after a change of the engine (by its rules, by a person, by its death) no rule reloads or restarts it.
    /// `None`: a minute for restarts, and none for reloads.
    pub cooldown: Option<Duration>,
}

impl Limits {
    /// How long after a change of the engine no change of this cost is made.
    pub(crate) fn cooldown(&self, cost: Cost) -> Duration {
        match (cost, self.cooldown) {
            (Cost::Hot, _) | (Cost::Reload, None) => Duration::ZERO,
            (Cost::Restart, None) => Duration::from_secs(60),
            (_, Some(cooldown)) => cooldown,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            restarts_per_hour: 2,
            restarts_per_day: 8,
            downtime_per_hour: Duration::from_secs(180),
            quality_loss_max: 0.03,
            cooldown: None,
        }
    }
}

/// What changes may cost all engines of a host together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLimits {
    /// Restarts within any 60 minutes.
    pub restarts_per_hour: u32,
    /// Restarts within any 24 hours.
    pub restarts_per_day: u32,
    /// Time within any 60 minutes in which engines do not serve because of changes, added up.
    pub downtime_per_hour: Duration,
}

impl Default for HostLimits {
    /// Twice what one engine may.
    fn default() -> Self {
        let one = Limits::default();
        Self {
            restarts_per_hour: one.restarts_per_hour * 2,
            restarts_per_day: one.restarts_per_day * 2,
            downtime_per_hour: one.downtime_per_hour * 2,
        }
    }
}

/// What an engine's rules are to know of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What all engines may cost together.
    pub limits: HostLimits,
    /// What the other engines have cost.
    pub others: Spent,
}

/// What an engine was put through because of its rules, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spent(Vec<Spending>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spending {
    at: Stamp,
    cost: Cost,
    away_ns: u64,
}

/// A limit that a change would pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exceeded {
    /// Which, for people.
    pub(crate) limit: String,
    /// How long until it would not be passed any more.
    pub(crate) remaining: Duration,
}

/// What was spent of each limit when a change was ordered, and whether that is too much.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balance {
    /// For programs: an object with what is spent and what may be, of the engine and of the host.
    pub numbers: Value,
    /// The first limit that the change passes, for people.
    pub exceeded: Option<String>,
}

impl Balance {
    pub(crate) fn new(own: &Spent, limits: &Limits, host: &Host, cost: Cost, now: Stamp) -> Self {
        let of_engine = Rate::of_engine(limits);
        let all = own.and(&host.others);
        Self {
            numbers: json!({
                "engine": own.numbers(&of_engine, now), "host": all.numbers(&Rate::of_host(&host.limits), now),
            }),
            exceeded: exceeded(own, limits, host, cost, now)
                .next()
                .map(|exceeded| exceeded.limit),
        }
    }
}

/// How much within which time.
struct Rate {
    restarts_per_hour: u32,
    restarts_per_day: u32,
    downtime_per_hour: Duration,
    /// " on this host", or nothing.
    of: &'static str,
}

impl Rate {
    const fn of_engine(limits: &Limits) -> Self {
        Self {
            restarts_per_hour: limits.restarts_per_hour,
            restarts_per_day: limits.restarts_per_day,
            downtime_per_hour: limits.downtime_per_hour,
            of: "",
        }
    }

    const fn of_host(limits: &HostLimits) -> Self {
        Self {
            restarts_per_hour: limits.restarts_per_hour,
            restarts_per_day: limits.restarts_per_day,
            downtime_per_hour: limits.downtime_per_hour,
            of: " on this host",
        }
    }
}

/// The limits that a change of this cost would pass now: the engine's own, and those of the host. What costs nothing
/// passes none.
pub(crate) fn exceeded(
    own: &Spent,
    limits: &Limits,
    host: &Host,
    cost: Cost,
    now: Stamp,
) -> impl Iterator<Item = Exceeded> {
    let (of_engine, of_host) = (Rate::of_engine(limits), Rate::of_host(&host.limits));
    let of_all = || own.and(&host.others).exceeded(&of_host, cost, now);
    own.exceeded(&of_engine, cost, now).into_iter().chain(of_all())
}

impl Spent {
    /// Both together, oldest first.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut all = [self.0.as_slice(), other.0.as_slice()].concat();
        all.sort_by_key(|spending| spending.at.mono_ns);
        Self(all)
    }

    /// A change was made, and the engine did not serve for `away`.
    pub(crate) fn add(&mut self, cost: Cost, away: Duration, now: Stamp) {
        self.0.retain(|spending| now.since(spending.at) < DAY);
        let away_ns = u64::try_from(away.as_nanos()).unwrap_or(u64::MAX);
        self.0.push(Spending {
            at: now,
            cost,
            away_ns,
        });
        let surplus = self.0.len().saturating_sub(MOST_REMEMBERED);
        self.0.drain(..surplus);
    }

    /// The engine did not serve for so long because of the change that was made last.
    pub(crate) fn away(&mut self, away: Duration) {
        if let Some(last) = self.0.last_mut() {
            let away_ns = u64::try_from(away.as_nanos()).unwrap_or(u64::MAX);
            last.away_ns = last.away_ns.saturating_add(away_ns);
        }
    }

    /// How long the engine was away at the last change of this cost, if that was seen.
    pub(crate) fn last_away(&self, cost: Cost) -> Option<Duration> {
        let of_cost = |spending: &&Spending| spending.cost == cost && spending.away_ns > 0;
        let last = self.0.iter().rev().find(of_cost)?;
        Some(Duration::from_nanos(last.away_ns))
    }

    fn exceeded(&self, limits: &Rate, cost: Cost, now: Stamp) -> Option<Exceeded> {
        if cost == Cost::Hot {
            return None;
        }
        let restarts = |within: Duration, most: u32, per: &str| {
            let recent =
                |spending: &&Spending| spending.cost == Cost::Restart && now.since(spending.at) < within;
            let at: Vec<Stamp> = self.0.iter().filter(recent).map(|spending| spending.at).collect();
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            // The budget has room again when so many of them are past that fewer than the limit are left.
            let last_in_the_way = at.len().checked_sub(most)?;
            let remaining = at
                .get(last_in_the_way)
                .map_or(within, |at| within.saturating_sub(now.since(*at)));
            Some(Exceeded {
                limit: format!("{most} restarts{} within {per} are spent", limits.of),
                remaining,
            })
        };
        (cost == Cost::Restart)
            .then(|| {
                restarts(HOUR, limits.restarts_per_hour, "the hour")
                    .or_else(|| restarts(DAY, limits.restarts_per_day, "a day"))
            })
            .flatten()
            .or_else(|| self.downtime(limits, now))
    }

    fn numbers(&self, limits: &Rate, now: Stamp) -> Value {
        let within = |time: Duration| self.0.iter().filter(move |it| now.since(it.at) < time);
        let restarts = |time| within(time).filter(|it| it.cost == Cost::Restart).count();
        let away: Duration = within(HOUR).map(|it| Duration::from_nanos(it.away_ns)).sum();
        json!({
            "restarts_within_hour": restarts(HOUR), "restarts_per_hour": limits.restarts_per_hour,
            "restarts_within_day": restarts(DAY), "restarts_per_day": limits.restarts_per_day,
            "downtime_within_hour_secs": away.as_secs_f64(),
            "downtime_per_hour_secs": limits.downtime_per_hour.as_secs_f64(),
        })
    }

    fn downtime(&self, limits: &Rate, now: Stamp) -> Option<Exceeded> {
        let most = limits.downtime_per_hour;
        let recent = || self.0.iter().filter(|spending| now.since(spending.at) < HOUR);
        let away = |spending: &Spending| Duration::from_nanos(spending.away_ns);
        let mut total: Duration = recent().map(away).sum();
        let exceeded = total >= most && !total.is_zero();
        let mut remaining = Duration::ZERO;
        for spending in recent() {
            if total < most || total.is_zero() {
                break;
            }
            total = total.saturating_sub(away(spending));
            remaining = HOUR.saturating_sub(now.since(spending.at));
        }
        exceeded.then(|| Exceeded {
            limit: format!(
                "{} without service{} within the hour are spent",
                show_duration(most),
                limits.of
            ),
            remaining,
        })
    }

    pub(crate) fn each_stamp(&mut self, change: &mut impl FnMut(&mut Stamp)) {
        self.0.iter_mut().for_each(|spending| change(&mut spending.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(spent: &Spent, cost: Cost, now: i64) -> Option<u64> {
        let (limits, host) = (Limits::default(), Host::default());
        exceeded(spent, &limits, &host, cost, Stamp::at_secs(now))
            .next()
            .map(|exceeded| exceeded.remaining.as_secs())
    }

    #[test]
    fn restarts_are_counted_by_the_hour_and_by_the_day() {
        let mut spent = Spent::default();
        assert_eq!(left(&spent, Cost::Restart, 0), None);
        for at in [0, 600] {
            spent.add(Cost::Restart, Duration::from_secs(10), Stamp::at_secs(at));
        }
        assert_eq!(left(&spent, Cost::Restart, 700), Some(2_900));
        assert_eq!(left(&spent, Cost::Restart, 3_599), Some(1));
        assert_eq!(left(&spent, Cost::Restart, 3_600), None);
        assert_eq!(
            (left(&spent, Cost::Reload, 700), left(&spent, Cost::Hot, 700)),
            (None, None)
        );
        for hour in 1..=3 {
            for at in [0, 600] {
                spent.add(Cost::Restart, Duration::ZERO, Stamp::at_secs(hour * 7_200 + at));
            }
        }
        // Eight within the day; the first of them is a day old at 86,400.
        assert_eq!(left(&spent, Cost::Restart, 40_000), Some(46_400));
        assert_eq!(left(&spent, Cost::Restart, 86_400), None);
    }

    #[test]
    fn time_without_service_is_a_budget_of_its_own() {
        let mut spent = Spent::default();
        spent.add(Cost::Reload, Duration::from_secs(100), Stamp::at_secs(0));
        assert_eq!(left(&spent, Cost::Reload, 10), None);
        spent.add(Cost::Reload, Duration::from_secs(90), Stamp::at_secs(60));
        assert_eq!(left(&spent, Cost::Reload, 100), Some(3_500));
        assert_eq!(left(&spent, Cost::Hot, 100), None);
        assert_eq!(left(&spent, Cost::Reload, 3_600), None);
    }

    #[test]
    fn no_restarts_at_all_is_a_limit_too() {
        let limits = Limits {
            restarts_per_hour: 0,
            ..Limits::default()
        };
        let (spent, host, now) = (Spent::default(), Host::default(), Stamp::at_secs(0));
        let exceeded = exceeded(&spent, &limits, &host, Cost::Restart, now).next();
        assert_eq!(exceeded.map(|exceeded| exceeded.remaining), Some(HOUR));
    }

    #[test]
    fn what_others_cost_counts_for_the_host() {
        let limits = Limits::default();
        let (mut own, mut host) = (Spent::default(), Host::default());
        let said = |own: &Spent, host: &Host, cost, now| {
            let all = exceeded(own, &limits, host, cost, Stamp::at_secs(now));
            all.map(|exceeded| (exceeded.limit, exceeded.remaining.as_secs()))
                .collect::<Vec<_>>()
        };
        own.add(Cost::Restart, Duration::ZERO, Stamp::at_secs(100));
        for at in [0, 50, 200] {
            assert_eq!(said(&own, &host, Cost::Restart, 300), []);
            host.others.add(Cost::Restart, Duration::ZERO, Stamp::at_secs(at));
        }
        // The oldest of the four is another engine's.
        let limit = |what: &str| what.to_owned();
        assert_eq!(
            said(&own, &host, Cost::Restart, 300),
            [(limit("4 restarts on this host within the hour are spent"), 3_300)]
        );
        assert_eq!(said(&own, &host, Cost::Reload, 300), []);
        own.add(Cost::Restart, Duration::from_secs(400), Stamp::at_secs(250));
        let both = said(&own, &host, Cost::Restart, 300);
        assert_eq!(both.len(), 2, "{both:?}");
        assert_eq!(
            said(&own, &host, Cost::Reload, 300),
            [
                (limit("3 min without service within the hour are spent"), 3_550),
                (
                    limit("6 min without service on this host within the hour are spent"),
                    3_550
                )
            ]
        );
    }
}
