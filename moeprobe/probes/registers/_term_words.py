"""Words that mark specialist prose, by field, and long words that everybody uses.

The list holds words that belong to a field rather than to one subject in it, so that a text on any subject of the field
meets some of them. The author of the list had also written the examples and the held-out text; words of one subject
that had slipped in from them were taken out again. Words that everybody learns at school (oxygen, cell, insulin) are
left out.
"""

from moeprobe.probes.registers._word_sets import word_set

_MATHEMATICS = (
    "theorem lemma corollary axiom proof conjecture integer polynomial matrix matrices vector tensor scalar "
    "eigenvalue eigenvector determinant kernel manifold topology subset superset finite infinite countable "
    "continuous differentiable derivative integral gradient convex orthogonal orthonormal diagonal symmetric "
    "isomorphism homomorphism subgroup abelian commutative bijective injective convergence convergent divergent norm "
    "metric modulo coefficient exponent exponential logarithm logarithmic linear nonlinear quadratic binomial "
    "bounded asymptotic asymptotically iterative recursion recursive quotient numerator denominator operator operand "
    "graph vertex vertices node edge subspace basis lattice algebra calculus stochastic"
)
_STATISTICS = (
    "variance covariance mean median quantile percentile deviation skewness distribution gaussian bayesian "
    "likelihood posterior prior estimator estimate estimation regression covariate confounder correlation hypothesis "
    "null chi-squared chi statistic significance p-value bias unbiased sample sampling randomised randomized "
    "stratified cohort baseline endpoint placebo multivariate univariate parameter variable dependent "
    "heteroscedastic residual bootstrap outlier interval dataset subgroup incidence prevalence"
)
_PHYSICS = (
    "velocity acceleration momentum inertia inertial viscosity viscous turbulent turbulence laminar entropy enthalpy "
    "thermodynamic adiabatic isothermal equilibrium kinetic potential electron proton neutron photon quantum "
    "wavelength frequency amplitude oscillation resonance spectrum spectral diffraction refraction interference "
    "polarised polarized polarisation electromagnetic dielectric flux field charge current voltage resistance "
    "capacitance inductance impedance conductivity semiconductor superconductor gravitational relativistic boson "
    "fermion nucleus nuclei isotope radioactive density thermal convection conduction ratio torque"
)
_ENGINEERING = (
    "tensile shear stress strain stiffness modulus fatigue yield alloy ductile brittle grain corrosion reinforcement "
    "specimen load beam truss girder weld rotor stator turbine compressor piston actuator sensor transducer "
    "amplifier transistor diode capacitor inductor filter low-pass bandwidth gain sampled modulation demodulation "
    "encoder decoder rectifier inverter throughput combustion exhaust catalytic coolant lubricant hydraulic "
    "pneumatic aerodynamic lift drag airfoil fuselage thrust nozzle tolerance calibration calibrated apparatus "
    "permeability feedback controller closed-loop overshoot steady-state"
)
_CHEMISTRY = (
    "molecular atomic ion ionic ionisation cation anion covalent valence oxidation oxidize reduction catalyst "
    "catalysis reagent solvent solute aqueous soluble insoluble precipitate precipitation titration acidic alkaline "
    "base pH buffer polymer monomer isomer chiral stoichiometry mole molar molarity distillation chromatography "
    "spectroscopy spectrometry crystalline amorphous lattice carbonate nitrogen phosphorus chloride sulphate sulfate "
    "sulphur sulfur nitrate oxide oxides methane hydrocarbon ethanol ammonia platinum potassium exothermic "
    "endothermic compound derivative substituent ligand residue residues"
)
_BIOLOGY = (
    "cellular extracellular intracellular membrane cytoplasm mitochondrion mitochondrial chloroplast nucleus "
    "organelle enzyme substrate inhibitor receptor ligand peptide polypeptide amino lipid glucose kinase phosphatase "
    "phosphorylation polymerase ligase primer nucleotide genome genomic allele genotype phenotype mutation "
    "recombination transcription translation ribosome chromosome meiosis mitosis phylogenetic phylogeny taxon taxa "
    "clade genus vertebrate vertebrates invertebrate arthropod bacterial bacterium microbial pathogen antigen "
    "antibody synapse synapses synaptic presynaptic postsynaptic axon dendrite neuron neurons neurotransmitter "
    "depolarisation metabolism metabolic biosynthesis homeostasis biomass ecosystem larva larvae denaturation "
    "annealing elongation"
)
_MEDICINE = (
    "clinical diagnosis prognosis etiology aetiology pathology pathogenesis lesion tumour tumor carcinoma metastasis "
    "malignant benign ischaemia ischemia coronary cardiac cardiovascular hepatic renal pulmonary cerebral vascular "
    "arterial venous gastric intestinal serum plasma haemoglobin hemoglobin filtration dosage intravenous "
    "subcutaneous therapeutic pharmacokinetic bioavailability contraindicated contraindication hypertension acute "
    "syndrome inflammation inflammatory immune immunological randomised survival remission comorbidity morbidity "
    "mortality anaesthesia anesthesia symptomatic"
)
_COMPUTING = (
    "algorithm algorithmic complexity runtime compiler interpreter parser syntax semantics token tokens thread "
    "threads mutex semaphore concurrency concurrent deadlock cache coherence coherent multiprocessor processor "
    "register pipeline instruction kernel buffer pointer heap stack array hash key keys tuple tuples relation "
    "relational schema index query queries transaction transactions atomicity isolation serialisable serializable "
    "replication shard latency protocol packet router congestion socket client header headers payload encryption "
    "cryptosystem cryptographic cipher authentication stateless idempotent intermediary asynchronous synchronous "
    "polymorphism inheritance interface abstraction neural recurrent transformer attention embedding softmax "
    "gradient inference hyperparameter batch epoch layer layers weights activation convolution convolutional "
    "normalisation normalization regularisation regularization optimiser optimizer optimisation optimization "
    "overfitting classifier bus automaton"
)
_EARTH = (
    "tectonic lithosphere mantle subduction magma basalt sediment sedimentary metamorphic igneous stratum strata "
    "erosion glacial fault seismic aquifer groundwater pore quartz feldspar atmospheric tropospheric stratosphere "
    "precipitation evaporation oceanic continental lateral geological geomorphology permafrost"
)
_LANGUAGE_AND_MUSIC = (
    "phoneme phonology phonetic phonological morpheme morphology morphological lexical lexicon syntax syntactic "
    "clause nominal verbal transitive intransitive ergative accusative dative genitive nasal assimilation segment "
    "vowel consonant discourse pragmatics semantic corpus corpora annotation tonic dominant chord counterpoint "
    "modulation cadence polyphonic tonal"
)
_LAW_AND_ECONOMICS = (
    "liability negligence tort plaintiff defendant jurisdiction statute statutory doctrine breach remedy damages "
    "contractual precedent appellate fiduciary equity elasticity inelastic marginal aggregate monetary fiscal "
    "deflation liquidity transmission asset assets depreciation amortisation impairment yield equilibrium utility "
    "externality hedging derivative ledger accrual solvency exogenous endogenous"
)
_METHOD = (
    "method methodology experiment experimental procedure analysis analyses measurement measured determined "
    "calculated computed derived defined denoted classified observed predicted estimated compared evaluated "
    "validated implemented initiated resolved amplified triggers comprises consists exhibits exceeds denotes yields "
    "corresponds threshold criterion criteria framework model mechanism phase phases stage component structure "
    "function functional process condition conditions constant property properties relative absolute maximum minimum "
    "optimal initial intermediate internal external longitudinal transverse distinct arbitrary robust constraint "
    "factor factors rate rates value values level levels unit units range ranges input output set sets state states "
    "adjacent symmetric asymmetric homogeneous heterogeneous dynamic static discrete theoretical empirical "
    "qualitative quantitative"
)
TERMS = word_set(
    " ".join(
        (
            _MATHEMATICS,
            _STATISTICS,
            _PHYSICS,
            _ENGINEERING,
            _CHEMISTRY,
            _BIOLOGY,
            _MEDICINE,
            _COMPUTING,
            _EARTH,
            _LANGUAGE_AND_MUSIC,
            _LAW_AND_ECONOMICS,
            _METHOD,
        )
    )
)

# After the General Academic Word List of Coxhead (2000): words of scholarly prose in every field.
SCHOLARLY = word_set(
    "study studies research researcher researchers data dataset evidence finding findings result results approach "
    "approaches concept concepts conceptual context contexts contextual evaluate evaluation identify identified "
    "indicate indicates indicated interpret interpretation occur occurs principle principles significant "
    "significantly similar specific specifically theory theories theoretical vary varies varied literature "
    "participant participants previous previously present paper article section hypothesis hypotheses investigate "
    "investigated examine examined propose proposed suggest suggests demonstrate demonstrates demonstrated show "
    "shows illustrate consist perspective perspectives framework role aspect aspects feature features category "
    "categories characteristic characteristics impact consequences consequence assess assessment assumption "
    "assumptions attributed contrast constitute constraints contribution contributions correspond corresponding "
    "define dimension dimensions effect effects emphasis ensure establish established focus implications implies "
    "imply interaction interactions involve involved linked linguistic model models negative normal obtained outcome "
    "outcomes parameters positive potential primary proportion psychological physical rely resource resources scheme "
    "sources sufficient technique techniques technology technical text texts type types underlying usage use used "
    "using user users within across among between furthermore moreover however therefore respectively whereas "
    "although despite particularly typically generally instance based terms according comparison task tasks scholar "
    "scholars discipline disciplines empirical methodological domain domains representation relationship associated "
    "association systematic overall subsequent variation trend pattern patterns scale survey questionnaire response "
    "responses group groups condition conditions population populations"
)

EVERYDAY = word_set(
    "information education communication cooperation innovation government appointment apartment department "
    "management situation question vacation station nation attention invitation celebration conversation generation "
    "decision television discussion agitation permission opinion impression expression possession passion mission "
    "vision session occasion version mention action section election collection direction connection protection "
    "production introduction construction instruction attraction reaction satisfaction competition condition "
    "position tradition addition ambition edition exhibition expedition opposition application documentation "
    "evaluation organisation organization registration congregation operation transformation appreciation foundation "
    "imagination inspiration explanation destination reputation population location relationship friendship moment "
    "development environment agreement argument treatment movement equipment entertainment excitement announcement "
    "statement investment importance difference experience audience science silence patience presence sentence "
    "violence distance chance dance entrance performance insurance appearance university community opportunity city "
    "ability reality quality society activity majority security personality possibility responsibility celebrity "
    "charity identity generosity electricity comfortable available possible terrible horrible incredible vegetable "
    "table reasonable valuable responsible favourite climate chocolate private separate ultimate candidate "
    "certificate concentrate celebrate appreciate create translate decorate magazine medicine machine routine engine "
    "online airline headline outside inside decide provide guide bride beside stadium premium museum purchase "
    "increase because showcase suitcase staircase purpose suppose american political social special official "
    "national traditional professional personal original international emotional musical physical medical historical "
    "typical practical popular similar regular particular familiar calendar customers digital revolution perfection "
    "honesty respect life people children family house home friend friends school teacher mother father money job "
    "work week day night year town village street food bread cake coffee beautiful young old nice big little good "
    "bad happy love feel think want like really very just got get go went come came said tell told look thing things "
    "lot bit kind nobody everybody everyone somebody something"
)
