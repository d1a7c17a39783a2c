"""The items of CLAIM 2024, the Checklist for Artificial Intelligence in Medical Imaging.

Tejani et al., Radiology: AI 2024, doi:10.1148/ryai.240300; in our words.
"""

NO_ENSEMBLE = "one network"
# Number, what is asked for, and what of a model card can hold the answer: a section or what ``card.claim`` calls so;
# nothing where it takes a person.
CLAIM: tuple[tuple[int, str, str], ...] = (
    (1, "Named as a study of AI, with the kind of technology", ""),
    (2, "Summary of design, methods, results, conclusions", ""),
    (3, "Background, intended use and role", ""),
    (4, "Aims and hypotheses", ""),
    (5, "Prospective or retrospective", "data"),
    (6, "Goal of the study", ""),
    (7, "Sources of the data", "source"),
    (8, "Inclusion and exclusion criteria", "data"),
    (9, "Preprocessing", "Recipe"),
    (10, "Selection of subsets of the data", "Images and patients"),
    (11, "De-identification", ""),
    (12, "Missing data", "Images and patients"),
    (13, "Image acquisition", "data"),
    (14, "Definition of the reference standard", "data"),
    (15, "Why this reference standard", ""),
    (16, "Source of the annotations", "data"),
    (17, "Annotation of the test set", ""),
    (18, "Variability between and within annotators", ""),
    (19, "How data were assigned to partitions", "Images and patients"),
    (20, "Level at which partitions are disjoint", "Images and patients"),
    (21, "Sample size", "Images and patients"),
    (22, "Description of the model", "Summary"),
    (23, "Software and packages", "Recipe"),
    (24, "First weights", "Recipe"),
    (25, "Training", "Recipe"),
    (26, "How the final model was chosen", "Recipe"),
    (27, "Ensembles", NO_ENSEMBLE),
    (28, "Metrics", "Results"),
    (29, "Uncertainty of the metrics", "Results"),
    (30, "Robustness or sensitivity analysis", "robustness"),
    (31, "Explainability", "Summary"),
    (32, "Evaluation on internal data", "internal"),
    (33, "Testing on external data", "external"),
    (34, "Registration of a clinical trial", ""),
    (35, "Patients and images included and excluded", "Images and patients"),
    (36, "Demographic and clinical characteristics", "subgroups"),
    (37, "Performance with uncertainty", "Results"),
    (38, "Diagnostic performance with its precision", "Results"),
    (39, "Analysis of errors", "Failures"),
    (40, "Limitations", ""),
    (41, "Implications for practice", ""),
    (42, "Full protocol or technical details", "code"),
    (43, "Availability of software, model and data", "available"),
    (44, "Funding", ""),
)
