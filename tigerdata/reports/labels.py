"""The class of every nodule, as one query that the statistics build on."""

# What several rows of one target say together: '?' where they contradict each other.
_ONE = "CASE WHEN bool_or(conflict) OR count(DISTINCT named) > 1 THEN '?' ELSE max(named) END AS label"
# The pathology of the nodule itself, else of its examination, else of its patient, else the label of its image. Where
# pathology contradicts itself the class is unknown: a label from elsewhere would be known to be doubtful.
NODULE_LABELS = f"""
said AS (
    SELECT patient_id, exam_id, nodule_ordinal, coalesce(conflict, '') <> '' AS conflict,
           CASE WHEN subtype NOT IN ('none', 'indeterminate') THEN subtype END AS named
    FROM pathology WHERE patient_id IS NOT NULL),
by_nodule AS (
    SELECT patient_id, exam_id, nodule_ordinal,
           {_ONE}
    FROM said WHERE exam_id IS NOT NULL AND nodule_ordinal IS NOT NULL GROUP BY ALL),
by_exam AS (
    SELECT patient_id, exam_id,
           {_ONE}
    FROM said WHERE exam_id IS NOT NULL GROUP BY ALL),
by_patient AS (
    SELECT patient_id, {_ONE}
    FROM said GROUP BY ALL),
labels AS (
    SELECT n.nodule_id, coalesce(n.patient_id, n.report_id, n.nodule_id) AS person,
           coalesce(nullif(coalesce(a.label, e.label, p.label, nullif(i.label, '')), '?'), 'unknown') AS label
    FROM nodules n
    LEFT JOIN by_nodule a ON a.patient_id = n.patient_id AND a.exam_id = n.exam_id AND a.nodule_ordinal = n.ordinal
    LEFT JOIN by_exam e ON e.patient_id = n.patient_id AND e.exam_id = n.exam_id
    LEFT JOIN by_patient p ON p.patient_id = n.patient_id
    LEFT JOIN images i ON i.image_id = n.image_id)
"""
# Values that a report states or hedges; what it denies is not there, and what was derived from masks nobody stated.
# One row a nodule and value.
STATED = """
stated AS (
    SELECT DISTINCT nodule_id, attribute, value FROM findings
    WHERE nodule_id IS NOT NULL AND value IS NOT NULL AND certainty <> 'negated'
      AND coalesce(rule, '') NOT LIKE 'derived:%')
"""
