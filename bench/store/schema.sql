-- The database: facts are append-only tables, everything else is a view over them.
-- Version 3. A change of a table, a view or a macro needs a step in bench/store/database.py:MIGRATIONS; views and macros
-- are made anew after the last step. What a bundle holds has a version of its own: bench/store/bundle.py:VERSION.

CREATE TABLE meta (schema_version INTEGER NOT NULL);

-- A data set as evaluated: a split, or a named subset of it. dataset_id hashes pixels, labels and sample indices.
CREATE TABLE datasets (
    dataset_id  VARCHAR PRIMARY KEY,
    name        VARCHAR NOT NULL,       -- digits, cifar10, ...
    split       VARCHAR NOT NULL,       -- train, test, ...
    subset      VARCHAR NOT NULL,       -- '' for the whole split, else 'n=100,seed=0'
    n           INTEGER NOT NULL,
    class_names VARCHAR[] NOT NULL
);

-- An attack as run: attack_id is its fingerprint, the hash of everything that changes its result.
CREATE TABLE attacks (
    attack_id   VARCHAR PRIMARY KEY,
    name        VARCHAR NOT NULL,       -- clean, fgsm, pgd-sat, autoattack, ...
    norm        VARCHAR NOT NULL,       -- Linf, L2; 'none' for clean
    eps_exact   VARCHAR NOT NULL,       -- '8/255'; '0' for clean
    eps         DOUBLE NOT NULL,
    lineup      VARCHAR[] NOT NULL,     -- names that outcomes.broken_by counts, from 2 on
    spec        VARCHAR NOT NULL        -- canonical JSON that attack_id hashes
);

CREATE TABLE checkpoints (
    checkpoint_id    VARCHAR PRIMARY KEY,   -- hash of the judged weights and what they are
    method           VARCHAR NOT NULL,      -- rslad, trades+adr, file.py:function
    variant          VARCHAR NOT NULL,      -- overrides of the preset, 'average.judged=true'; '' for none
    preset           VARCHAR NOT NULL,
    model            VARCHAR NOT NULL,
    trained_on       VARCHAR NOT NULL,      -- name of the training data set; '' when unknown
    seed             BIGINT,                -- of the training; NULL when unknown
    run_id           VARCHAR,               -- hash of all that determined the training; NULL for foreign models
    recipe_id        VARCHAR NOT NULL,      -- the same without the seed, so that seeds of one recipe are averaged
    epoch            INTEGER,               -- epochs behind the kept weights
    epochs           INTEGER,               -- epochs planned
    selection        VARCHAR NOT NULL,      -- rule that chose the kept epoch; '' when unknown
    teacher_id       VARCHAR,               -- checkpoint_id of the teacher
    recipe           VARCHAR NOT NULL,      -- canonical JSON
    schedule         VARCHAR NOT NULL,      -- canonical JSON
    provenance       VARCHAR NOT NULL       -- canonical JSON: versions, data hash, ...
);

-- Per-epoch class vectors of a training run, kept for every selection rule and for the curves.
CREATE TABLE epochs (
    checkpoint_id VARCHAR NOT NULL,
    epoch         INTEGER NOT NULL,     -- 1-based: after how many epochs
    split         VARCHAR NOT NULL,     -- 'train' (on the batches as trained) or 'valid' (held out)
    class         USMALLINT NOT NULL,
    n             INTEGER NOT NULL,
    hits_clean    INTEGER,              -- NULL when the method never looked at clean images
    hits_adv      INTEGER
);

CREATE TABLE evaluations (
    evaluation_id  INTEGER PRIMARY KEY,
    evaluation_key VARCHAR NOT NULL UNIQUE,     -- hash of the next three
    checkpoint_id  VARCHAR NOT NULL,
    dataset_id     VARCHAR NOT NULL,
    attack_id      VARCHAR NOT NULL,
    n              INTEGER NOT NULL             -- samples planned; complete when its chunks sum to it
);

CREATE TABLE chunks (
    evaluation_id INTEGER NOT NULL,
    n             INTEGER NOT NULL,
    forwards      BIGINT NOT NULL,              -- passes of all its samples together
    backwards     BIGINT NOT NULL,
    seconds       DOUBLE                        -- NULL where imported: exports leave times out
);

CREATE TABLE outcomes (
    evaluation_id INTEGER NOT NULL,
    sample        UINTEGER NOT NULL,    -- row in the data set's split
    label         USMALLINT NOT NULL,
    predicted     USMALLINT NOT NULL,
    correct       BOOLEAN NOT NULL,
    confidence    FLOAT NOT NULL,
    broken_by     UTINYINT NOT NULL,    -- 0 correct, 1 wrong unattacked, 2.. position in the line-up
    -- NULL where the outcome was stored before version 2:
    divergence    FLOAT,                -- KL(softmax of the clean image || of the judged one), nats; 0 unattacked
    forwards      UINTEGER,             -- passes of this sample through the model
    backwards     UINTEGER
);

-- Verdicts of soundness checks; a newer run of a check replaces the older.
CREATE TABLE checks (
    checkpoint_id VARCHAR NOT NULL,
    dataset_id    VARCHAR NOT NULL,
    norm          VARCHAR NOT NULL,     -- 'none' for a check that no threat is part of
    eps_exact     VARCHAR NOT NULL,     -- '0' likewise
    check_name    VARCHAR NOT NULL,
    value         DOUBLE,               -- NULL when nothing was measured
    threshold     DOUBLE,
    verdict       VARCHAR NOT NULL CHECK (verdict IN ('pass', 'warn', 'fail', 'not-run')),
    n             INTEGER NOT NULL,     -- samples it was measured on
    detail        VARCHAR NOT NULL,     -- one line for a person
    version       INTEGER NOT NULL,     -- of the check
    PRIMARY KEY (checkpoint_id, dataset_id, norm, eps_exact, check_name)
);

-- Figures reported elsewhere; shown only with their source.
CREATE TABLE published (
    source   VARCHAR NOT NULL,
    method   VARCHAR NOT NULL,
    dataset  VARCHAR NOT NULL,
    model    VARCHAR NOT NULL,
    attack   VARCHAR NOT NULL,
    norm     VARCHAR NOT NULL,
    eps      DOUBLE NOT NULL,
    metric   VARCHAR NOT NULL,
    value    DOUBLE NOT NULL
);

-- How classes fare, over the classes with samples; bench/report/metrics.py computes the same from arrays, and a test holds
-- the two together. NSD is NULL where every class is at 0; of classes that are equally bad the first is the worst.
CREATE OR REPLACE MACRO nsd(accuracy) AS stddev_pop(accuracy) / nullif(avg(accuracy), 0);
CREATE OR REPLACE MACRO worst_class(class_name, class, accuracy) AS arg_min(class_name, (accuracy, class));
CREATE OR REPLACE MACRO worst_accuracy(accuracy) AS min(accuracy);

-- Evaluations whose every planned sample is in; only these are visible to the views below.
CREATE OR REPLACE VIEW complete_evaluations AS
SELECT e.*, c.forwards, c.backwards, c.seconds
FROM evaluations e
JOIN (SELECT evaluation_id, sum(n) AS done, sum(forwards)::BIGINT AS forwards, sum(backwards)::BIGINT AS backwards,
             sum(seconds) AS seconds
      FROM chunks GROUP BY evaluation_id) c USING (evaluation_id)
WHERE c.done = e.n;

-- Counted before it is joined, so that names are looked up per class and not per outcome.
CREATE OR REPLACE VIEW class_accuracy AS
SELECT e.checkpoint_id, k.method, d.name AS dataset, k.model, k.seed, a.name AS attack, a.norm, a.eps,
       o.label AS class, d.class_names[o.label + 1] AS class_name, o.n, o.correct, o.correct / o.n AS accuracy,
       k.variant, d.split, d.subset, e.dataset_id, e.attack_id, a.eps_exact, e.evaluation_id, k.preset, k.recipe_id,
       k.selection, o.divergence
FROM (SELECT evaluation_id, label, count(*) AS n, count(*) FILTER (correct) AS correct, avg(divergence) AS divergence
      FROM outcomes GROUP BY evaluation_id, label) o
JOIN complete_evaluations e USING (evaluation_id)
JOIN checkpoints k USING (checkpoint_id)
JOIN datasets d USING (dataset_id)
JOIN attacks a USING (attack_id);

-- accuracy is over samples; worst class and NSD over classes.
CREATE OR REPLACE VIEW summary AS
SELECT checkpoint_id, method, dataset, model, seed, attack, norm, eps,
       sum(n)::BIGINT AS n, sum(correct) / sum(n) AS accuracy,
       worst_class(class_name, class, accuracy) AS worst_class, worst_accuracy(accuracy) AS worst_accuracy,
       nsd(accuracy) AS nsd,
       variant, split, subset, dataset_id, attack_id, eps_exact, evaluation_id, preset, recipe_id,
       selection
FROM (SELECT * EXCLUDE (divergence) FROM class_accuracy)
GROUP BY ALL;

-- One row per training recipe (recipe_id), selection rule and attack; mean over its training seeds. Rank is within one
-- data set and one attack fingerprint, by accuracy.
CREATE OR REPLACE VIEW leaderboard AS
SELECT method, dataset, model, count(*) AS seeds, attack, norm, eps,
       avg(accuracy) AS accuracy, stddev_samp(accuracy) AS accuracy_std,
       avg(worst_accuracy) AS worst_accuracy, avg(nsd) AS nsd,
       rank() OVER (PARTITION BY dataset_id, attack_id ORDER BY avg(accuracy) DESC) AS rank,
       variant, split, subset, dataset_id, attack_id, eps_exact, preset, recipe_id, selection
FROM summary
GROUP BY method, variant, preset, recipe_id, dataset, model, attack, norm, eps, split, subset, dataset_id, attack_id,
         eps_exact, selection;

-- What is known of every sample under one norm and radius: the AND over all complete attacks within it, whatever their
-- strength. It is no attack, and no attack's figure may be taken for it. broken_by names the first attack that broke the
-- sample (by name, then fingerprint), with its member of the line-up; 'clean' where the sample was wrong unattacked,
-- NULL where it stands.
CREATE OR REPLACE VIEW best_known AS
SELECT e.checkpoint_id, e.dataset_id, e.norm, e.eps_exact, o.sample, any_value(o.label) AS label,
       bool_and(o.correct) AS correct, count(*) AS attacks,
       arg_min(CASE WHEN o.broken_by = 1 THEN 'clean'
                    WHEN len(e.lineup) > 1 THEN e.name || ': ' || e.lineup[o.broken_by::INTEGER - 1]
                    ELSE e.name END, e.place) FILTER (NOT o.correct) AS broken_by
FROM outcomes o
JOIN (SELECT *, row_number() OVER (ORDER BY name, attack_id) AS place
      FROM complete_evaluations JOIN attacks USING (attack_id)
      WHERE name != 'clean') e USING (evaluation_id)
GROUP BY e.checkpoint_id, e.dataset_id, e.norm, e.eps_exact, o.sample;

-- As class_accuracy, of what is best known.
CREATE OR REPLACE VIEW best_known_class_accuracy AS
SELECT b.checkpoint_id, k.method, d.name AS dataset, k.model, k.seed, b.norm, a.eps,
       b.label AS class, d.class_names[b.label + 1] AS class_name, b.n, b.correct, b.correct / b.n AS accuracy, b.attacks,
       k.variant, d.split, d.subset, b.dataset_id, b.eps_exact, k.preset, k.recipe_id, k.selection
FROM (SELECT checkpoint_id, dataset_id, norm, eps_exact, label, attacks, count(*) AS n,
             count(*) FILTER (correct) AS correct
      FROM best_known GROUP BY ALL) b
JOIN checkpoints k USING (checkpoint_id)
JOIN datasets d USING (dataset_id)
JOIN (SELECT norm, eps_exact, any_value(eps) AS eps FROM attacks GROUP BY ALL) a USING (norm, eps_exact);

-- As summary, of what is best known; attacks is how many attacks it is over.
CREATE OR REPLACE VIEW best_known_summary AS
SELECT checkpoint_id, method, dataset, model, seed, norm, eps,
       sum(n)::BIGINT AS n, sum(correct) / sum(n) AS accuracy,
       worst_class(class_name, class, accuracy) AS worst_class, worst_accuracy(accuracy) AS worst_accuracy,
       nsd(accuracy) AS nsd, attacks,
       variant, split, subset, dataset_id, eps_exact, preset, recipe_id, selection
FROM best_known_class_accuracy
GROUP BY ALL;

-- Whether confidences can be believed. ece: expected calibration error over 15 bins of equal width; ece_mass: of equal
-- numbers of samples, where samples of one confidence share their accuracy, so that their order does not matter.
-- error_confidence: mean confidence where wrong, NULL where nothing is. divergence: mean KL of clean to judged softmax.
CREATE OR REPLACE VIEW calibration AS
WITH width AS (
    SELECT evaluation_id, sum(n)::BIGINT AS n, sum(confidence) / sum(n) AS mean_confidence,
           sum(correct) / sum(n) AS accuracy, sum(abs(correct - confidence)) / sum(n) AS ece,
           sum(error_confidence) / nullif(sum(n - correct), 0) AS error_confidence, sum(divergence) / sum(n) AS divergence
    FROM (SELECT evaluation_id, least(floor(15 * confidence::DOUBLE), 14) AS bin, count(*) AS n,
                 count(*) FILTER (correct) AS correct, sum(confidence::DOUBLE) AS confidence,
                 sum(confidence::DOUBLE) FILTER (NOT correct) AS error_confidence, sum(divergence::DOUBLE) AS divergence
          FROM outcomes GROUP BY evaluation_id, bin)
    GROUP BY evaluation_id
), mass AS (
    SELECT evaluation_id, sum(abs(gap)) / sum(n) AS ece_mass
    FROM (SELECT evaluation_id, bin, count(*) AS n, sum(share - confidence) AS gap
          FROM (SELECT evaluation_id, confidence::DOUBLE AS confidence,
                       avg(correct::INTEGER) OVER (PARTITION BY evaluation_id, confidence) AS share,
                       ntile(15) OVER (PARTITION BY evaluation_id ORDER BY confidence) AS bin
                FROM outcomes)
          GROUP BY evaluation_id, bin)
    GROUP BY evaluation_id
)
SELECT e.checkpoint_id, k.method, d.name AS dataset, k.model, k.seed, a.name AS attack, a.norm, a.eps,
       w.n, w.mean_confidence, w.accuracy, w.ece, m.ece_mass, w.error_confidence, w.divergence,
       k.variant, d.split, d.subset, e.dataset_id, e.attack_id, a.eps_exact, e.evaluation_id, k.preset, k.recipe_id,
       k.selection
FROM width w
JOIN mass m USING (evaluation_id)
JOIN complete_evaluations e USING (evaluation_id)
JOIN checkpoints k USING (checkpoint_id)
JOIN datasets d USING (dataset_id)
JOIN attacks a USING (attack_id);
