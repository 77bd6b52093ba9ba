//! The program that is asked about registrations (`authorise`): what it has been asked, and what it has
//! answered.
//!
//! It is asked only about bridges whose keys are good, and can refuse them or limit their keys. So no
//! secret of the proxy's and no key leaves it, and an answer that does not come lets nobody in.
//!
//! Equal questions are asked once at a time, by threads of their own: a worker may not wait. An answer
//! is kept for as long as it says. A *hold* is what the bridges that were let in by one question
//! share: when an equal question is answered with no later, it is lost, and they with it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::config::{Endpoint, Settings};
use crate::net::log_limiter::{LogLimiter, suppressed};
use crate::time::Millis;

use super::authorise_call::{self, Answer, Decision};

/// Most threads: most questions that are asked at the same moment. Others wait for one of them.
const THREADS: usize = 16;

/// How long a thread waits for another question before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// The shortest time between two questions about bridges that are connected: answers that may not be
/// kept must not make a question of every request.
const AGAIN: Duration = Duration::from_secs(5);

/// Which part of the questions that may wait one visitor may have: nobody is to keep all others out.
const SHARE: usize = 4;

/// Names a question: the SHA-256 of its text.
pub(super) type QuestionId = [u8; 32];

/// What is asked.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) id: QuestionId,
    text: Arc<str>,
    /// The host that it is about, for the log.
    about: Arc<str>,
    /// Who has made it necessary, and whom the limits of an answer are for: by key, certificate, or
    /// address.
    visitor: Arc<str>,
}

impl Question {
    pub(super) fn visitor(&self) -> &str {
        &self.visitor
    }

    /// `text` is the whole of it.
    pub(super) fn new(text: &str, about: &str, visitor: &str) -> Question {
        let id = Sha256::digest(text).into();
        Question { id, text: text.into(), about: about.into(), visitor: visitor.into() }
    }
}

/// What those who have asked are told.
pub(super) struct Told {
    pub(super) id: QuestionId,
    /// `None` if there is no answer.
    pub(super) answer: Option<Arc<Answer>>,
    /// Bridges have lost what they were let in by. Only the first who has asked is told.
    pub(super) lost: bool,
}

/// Runs on a thread, when there is an answer or none is to be expected.
type Then = Box<dyn FnOnce(Told) + Send>;

/// What the bridges that were let in by one question share.
pub(super) struct Hold {
    question: Question,
    /// When to ask again, in milliseconds of the workers' clocks.
    again: AtomicU64,
    is_lost: AtomicBool,
}

impl Hold {
    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// Whether the answer has become no.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Whether the answer is to be asked for again; then the caller does so.
    pub(super) fn begin_again(&self, now: Millis) -> bool {
        let again = |at: u64| (at <= now.0).then_some((now + AGAIN).0);
        self.again.fetch_update(Relaxed, Relaxed, again).is_ok()
    }
}

/// How many questions there were, by how they ended, and how many answers were at hand.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) allowed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) kept: AtomicU64,
}

/// The program, for all workers.
pub(super) struct Authoriser {
    table: Mutex<Table>,
    /// A thread has something to ask.
    filled: Condvar,
    pub(super) counts: Counts,
    /// The zero of the workers' clocks.
    started: Instant,
}

#[derive(Default)]
struct Table {
    /// What is in force; `None` if nobody is asked.
    to: Option<Asked>,
    /// Changes with whom is asked.
    epoch: u64,
    answers: Answers,
    /// Who waits for what.
    waiting: HashMap<(QuestionId, u64), Waiting>,
    queue: VecDeque<Task>,
    holds: HashMap<QuestionId, Weak<Hold>>,
    /// How many holds there may be before those are looked for that nobody has any more.
    look_at: usize,
    threads: usize,
    /// Those of them that wait for a question.
    idle: usize,
    said: LogLimiter,
}

/// Those who wait for an answer.
struct Waiting {
    visitor: Arc<str>,
    thens: Vec<Then>,
}

/// The settings that matter here.
#[derive(Clone, PartialEq)]
struct Asked {
    to: Arc<Endpoint>,
    timeout: Duration,
    questions: usize,
    cache: usize,
}

struct Task {
    question: Question,
    to: Arc<Endpoint>,
    until: Instant,
    epoch: u64,
}

/// Answers that are kept. The one that was used longest ago goes first.
#[derive(Default)]
struct Answers {
    by_id: HashMap<QuestionId, Kept>,
    by_use: BTreeMap<u64, QuestionId>,
    uses: u64,
}

struct Kept {
    answer: Arc<Answer>,
    until: Instant,
    used: u64,
}

impl Answers {
    /// An answer, and how long it may still be used.
    fn get(&mut self, id: &QuestionId, now: Instant) -> Option<(Arc<Answer>, Duration)> {
        let kept = self.by_id.get_mut(id)?;
        self.by_use.remove(&kept.used);
        if kept.until <= now {
            self.by_id.remove(id);
            return None;
        }
        self.uses += 1;
        kept.used = self.uses;
        self.by_use.insert(kept.used, *id);
        Some((Arc::clone(&kept.answer), kept.until - now))
    }

    /// Keeps an answer, and `most` in all.
    fn put(&mut self, id: QuestionId, answer: &Arc<Answer>, now: Instant, most: usize) {
        if let Some(old) = self.by_id.remove(&id) {
            self.by_use.remove(&old.used);
        }
        if answer.max_age.is_zero() {
            return;
        }
        while self.by_id.len() >= most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_id.remove(&oldest);
        }
        self.uses += 1;
        let (answer, until) = (Arc::clone(answer), now + answer.max_age);
        self.by_id.insert(id, Kept { answer, until, used: self.uses });
        self.by_use.insert(self.uses, id);
    }
}

impl Authoriser {
    /// `started` is the zero of the workers' clocks.
    pub(super) fn new(started: Instant) -> Authoriser {
        Authoriser {
            table: Mutex::default(),
            filled: Condvar::new(),
            counts: Counts::default(),
            started,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic under the lock ends the process.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Asks as `settings` say from now on. What another program has answered is forgotten, and bridges
    /// that it has let in are asked about when they park the next time.
    pub(super) fn put_in_force(&self, settings: &Settings) {
        let asked = settings.authorise.as_ref().map(|to| Asked {
            to: Arc::clone(to),
            timeout: settings.authorise_timeout,
            questions: settings.authorise_questions,
            cache: settings.authorise_cache,
        });
        let mut table = self.lock();
        let whom = |asked: &Option<Asked>| asked.as_ref().map(|asked| Arc::clone(&asked.to));
        if whom(&table.to) != whom(&asked) {
            table.epoch += 1;
            table.answers = Answers::default();
            let holds = table.holds.values().filter_map(Weak::upgrade);
            holds.for_each(|hold| hold.again.store(0, Relaxed));
        }
        table.to = asked;
    }

    /// The answer to a question, if one is at hand, and how long it may still be used.
    pub(super) fn kept(&self, question: &Question) -> Option<(Arc<Answer>, Duration)> {
        let answer = self.lock().answers.get(&question.id, Instant::now());
        if answer.is_some() {
            self.counts.kept.fetch_add(1, Relaxed);
        }
        answer
    }

    /// How many questions wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// What the bridges share that were let in by this question, which is to be asked again from then
    /// on.
    pub(super) fn hold(&self, question: &Question, again: Millis) -> Arc<Hold> {
        let mut table = self.lock();
        if let Some(hold) = table.holds.get(&question.id).and_then(Weak::upgrade) {
            return hold;
        }
        if table.holds.len() >= table.look_at {
            table.holds.retain(|_, hold| hold.strong_count() > 0);
            table.look_at = 2 * table.holds.len() + 1024;
        }
        let hold = Arc::new(Hold {
            question: question.clone(),
            again: AtomicU64::new(again.0),
            is_lost: AtomicBool::new(false),
        });
        table.holds.insert(question.id, Arc::downgrade(&hold));
        hold
    }

    /// Has a thread ask, unless the same is being asked. `then` is called with the answer.
    ///
    /// False if too much is being asked, or no thread can be started: then `then` is not called.
    pub(super) fn ask(
        self: &Arc<Self>,
        question: &Question,
        then: impl FnOnce(Told) + Send + 'static,
    ) -> bool {
        let mut table = self.lock();
        let Some(Asked { to, timeout, questions, .. }) = table.to.clone() else { return false };
        let epoch = table.epoch;
        if let Some(waiting) = table.waiting.get_mut(&(question.id, epoch)) {
            waiting.thens.push(Box::new(then));
            return true;
        }
        let of_visitor = |waiting: &&Waiting| waiting.visitor == question.visitor;
        let share = (questions / SHARE).max(1);
        if table.waiting.len() >= questions
            || table.waiting.values().filter(of_visitor).count() >= share
            || !self.hire(&mut table)
        {
            return false;
        }
        let until = Instant::now() + timeout;
        table.queue.push_back(Task { question: question.clone(), to, until, epoch });
        let visitor = Arc::clone(&question.visitor);
        table
            .waiting
            .insert((question.id, epoch), Waiting { visitor, thens: vec![Box::new(then)] });
        drop(table);
        self.filled.notify_one();
        true
    }

    /// Starts a thread for one more question, if none is idle. False if there is none.
    fn hire(self: &Arc<Self>, table: &mut Table) -> bool {
        if table.idle > table.queue.len() || table.threads == THREADS {
            return true;
        }
        let authoriser = Arc::clone(self);
        let spawned =
            thread::Builder::new().name("authorise".to_owned()).spawn(move || authoriser.work());
        match spawned {
            Ok(_) => table.threads += 1,
            Err(error) => log::warn!("authorise: no thread can be started: {error}"),
        }
        table.threads > 0
    }

    /// Asks what is to be asked, until there is nothing any more.
    fn work(&self) {
        let mut table = self.lock();
        loop {
            if let Some(task) = table.queue.pop_front() {
                drop(table);
                self.finish(&task, authorise_call::ask(&task.to, &task.question.text, task.until));
                table = self.lock();
                continue;
            }
            table.idle += 1;
            let waited = self.filled.wait_timeout(table, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            table = woken;
            table.idle -= 1;
            if timeout.timed_out() && table.queue.is_empty() {
                table.threads -= 1;
                return;
            }
        }
    }

    /// Puts an answer in force, and tells those who wait for it.
    fn finish(&self, task: &Task, result: Result<Answer, String>) {
        let question = &task.question;
        let mut table = self.lock();
        let waiting = table.waiting.remove(&(question.id, task.epoch));
        let is_in_force = table.epoch == task.epoch;
        let (mut answer, mut lost) = (None, false);
        match result {
            Ok(result) => {
                let result = answer.insert(Arc::new(result));
                if is_in_force {
                    let most = table.to.as_ref().map_or(0, |asked| asked.cache);
                    table.answers.put(question.id, result, Instant::now(), most);
                    lost = self.renew(&table, question, result);
                }
                self.count(result);
            }
            Err(what) => {
                self.counts.failed.fetch_add(1, Relaxed);
                if let Some(count) = table.said.allow(self.now()) {
                    let more = suppressed(count, " questions failed");
                    log::warn!("authorise: {} has not answered: {what}{more}", task.to);
                }
            }
        }
        drop(table);
        let thens = waiting.map(|waiting| waiting.thens).unwrap_or_default();
        for (at, then) in thens.into_iter().enumerate() {
            then(Told { id: question.id, answer: answer.clone(), lost: lost && at == 0 });
        }
    }

    fn count(&self, answer: &Answer) {
        match answer.decision {
            Decision::Allowed { .. } => self.counts.allowed.fetch_add(1, Relaxed),
            Decision::Refused(_) => self.counts.refused.fetch_add(1, Relaxed),
        };
    }

    /// What an answer means for bridges that were let in by an equal question. True if they have lost
    /// it.
    fn renew(&self, table: &Table, question: &Question, answer: &Answer) -> bool {
        let Some(hold) = table.holds.get(&question.id).and_then(Weak::upgrade) else {
            return false;
        };
        hold.again.store((self.now() + answer.max_age.max(AGAIN)).0, Relaxed);
        let is_refused = matches!(answer.decision, Decision::Refused(_));
        let was_lost = hold.is_lost.swap(is_refused, Relaxed);
        let lost = is_refused && !was_lost;
        if lost {
            log::info!(
                "authorise: {} is no longer allowed; its bridges are closed",
                question.about
            );
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn question(text: &str) -> Question {
        Question::new(text, "a.test", "a.test")
    }

    fn answer(is_allowed: bool, seconds: u64) -> Arc<Answer> {
        let decision = match is_allowed {
            true => Decision::Allowed { limits: Limits::default(), account: None },
            false => Decision::Refused(String::new()),
        };
        Arc::new(Answer { decision, max_age: Duration::from_secs(seconds) })
    }

    #[test]
    fn answers_are_kept_for_their_time_and_those_used_last_for_longest() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let ids = ["a", "b", "c", "d"].map(|text| question(text).id);
        for id in &ids[..3] {
            answers.put(*id, &answer(true, 60), now, 3);
        }
        assert!(answers.get(&ids[0], after(59)).is_some());
        answers.put(ids[3], &answer(false, 10), now, 3);
        let has = |answers: &mut Answers, at| ids.map(|id| answers.get(&id, after(at)).is_some());
        assert_eq!(has(&mut answers, 9), [true, false, true, true]);
        assert_eq!(has(&mut answers, 10), [true, false, true, false]);
        answers.put(ids[0], &answer(true, 0), now, 3);
        assert_eq!(has(&mut answers, 0), [false, false, true, false], "it is not to be kept");
        assert_eq!((answers.by_id.len(), answers.by_use.len()), (1, 1));
    }

    fn renew(authoriser: &Authoriser, question: &Question, is_allowed: bool) -> bool {
        let table = authoriser.lock();
        authoriser.renew(&table, question, &answer(is_allowed, 0))
    }

    #[test]
    fn a_hold_is_lost_once_and_may_come_back() {
        let authoriser = Authoriser::new(Instant::now());
        let asked = question("a");
        assert!(!renew(&authoriser, &asked, false), "nobody has it");
        let [hold, again] = [(); 2].map(|()| authoriser.hold(&asked, Millis(0)));
        assert!(Arc::ptr_eq(&hold, &again) && !hold.is_lost());
        assert!(renew(&authoriser, &asked, false) && hold.is_lost());
        assert!(!renew(&authoriser, &asked, false), "that is known");
        assert!(!renew(&authoriser, &asked, true) && !hold.is_lost());
        drop((hold, again));
        assert!(!renew(&authoriser, &asked, false));
    }

    #[test]
    fn a_hold_is_asked_about_again_once_in_a_while() {
        let hold = Authoriser::new(Instant::now()).hold(&question("a"), Millis(60_000));
        assert!(!hold.begin_again(Millis(59_999)));
        let now = Millis(60_000);
        assert!(hold.begin_again(now) && !hold.begin_again(now + Duration::from_secs(4)));
        assert!(hold.begin_again(now + AGAIN));
    }

    #[test]
    fn nobody_is_asked_where_nothing_is_set() {
        let authoriser = Arc::new(Authoriser::new(Instant::now()));
        assert!(!authoriser.ask(&question("a"), |_| panic!("nobody is asked")));
        assert!(authoriser.kept(&question("a")).is_none());
    }
}
