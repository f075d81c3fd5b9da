"""Every number of the agent, with DreamerV3's values as defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """Sizes of the networks; the defaults are DreamerV3's size12m."""

    deter: Count = Field(2048, description="D, width of the deterministic latent")
    hidden: Count = Field(256, description="width of the layers inside the RSSM")
    stoch: Count = Field(32, description="S, number of categorical latents")
    classes: Annotated[int, Field(ge=2, le=256)] = Field(16, description="K, classes of each")
    blocks: Count = Field(8, description="blocks of the block-diagonal recurrence")
    dyn_layers: Count = Field(1, description="block-linear layers before the gates")
    prior_layers: Count = Field(2, description="layers of the prior")
    posterior_layers: Count = Field(1, description="layers of the posterior")
    units: Count = Field(256, description="width of every MLP")
    vector_layers: Count = Field(3, description="layers of the vector encoder and decoder")
    reward_layers: Count = Field(1, description="layers of the reward and continue heads")
    policy_layers: Count = Field(3, description="layers of actor, critic and riders")
    image_code: Literal["conv", "patch"] = Field(
        "conv",
        description="conv: the reference's; patch: matrix products only, for CPUs",
    )
    depth: Count = Field(16, description="channels of the image code, in multiples of this")
    patch: Count = Field(8, description="edge of a patch in pixels, for image_code=patch")
    unimix: Share = Field(0.01, description="uniform share mixed into every categorical latent")
    actor_unimix: Share = Field(
        0.01, description="the same for categorical actions (paper; docs/adr)"
    )
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of matrix products"
    )

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.deter % self.blocks:
            raise ValueError(f"deter={self.deter} is not divisible by blocks={self.blocks}")
        if 64 % self.patch:
            raise ValueError(f"patch={self.patch} does not divide the image's 64 pixels")
        return self


class LossConfig(Section):
    """Scales and constants of the losses (DreamerV3, Table of hyperparameters)."""

    reconstruction: float = Field(1.0, description="of each slot")
    reward: float = Field(1.0, description="two-hot")
    continue_: float = Field(1.0, alias="continue", description="soft label of the discount")
    dynamics: float = Field(1.0, description="prior towards posterior")
    representation: float = Field(0.1, description="posterior towards prior")
    policy: float = Field(1.0, description="REINFORCE in imagination")
    value: float = Field(1.0, description="critic on imagined returns")
    replay_value: float = Field(0.3, description="critic on replayed returns")
    free_nats: float = Field(1.0, description="KL below this is not minimised")
    slow_regulariser: float = Field(1.0, description="weight of the slow critic's own prediction")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ImaginationConfig(Section):
    """Imagination and the actor-critic learnt in it."""

    horizon: Count = Field(15, description="H, imagined steps")
    last: Annotated[int, Field(ge=0)] = Field(
        0,
        description="imagine from the last K states of each sequence; 0: from all of them",
    )
    discount_horizon: Annotated[float, Field(gt=1)] = Field(333.0, description="gamma = 1 - 1/this")
    lambda_: Share = Field(0.95, alias="lambda", description="of the lambda-returns")
    entropy: float = Field(3e-4, description="eta, scale of the actor's entropy bonus")
    return_rate: Positive = Field(0.01, description="EMA rate of the return percentiles")
    return_floor: Positive = Field(
        1.0, description="returns are never scaled up by more than 1/this"
    )
    slow_rate: Positive = Field(0.02, description="EMA rate of the slow critic")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def gamma(self) -> float:
        return 1 - 1 / self.discount_horizon


class OptimiserConfig(Section):
    """LaProp with adaptive gradient clipping, state kept per owner (slot, head, shared)."""

    lr: Positive = Field(4e-5, description="learning rate after the warm-up")
    warmup: Annotated[int, Field(ge=0)] = Field(
        1000, description="updates of linear warm-up from 0"
    )
    agc: Positive = Field(0.3, description="bound of a tensor's gradient norm over its own norm")
    pmin: Positive = Field(1e-3, description="smallest own norm that counts")
    beta1: Share = Field(0.9, description="momentum of the scaled gradient")
    beta2: Share = Field(0.999, description="decay of the squared gradient")
    eps: Positive = Field(1e-20, description="keeps the scaling finite")
    idle: Literal["keep", "decay"] = Field(
        "keep",
        description="owners absent from a batch: untouched, or fed a zero gradient",
    )


class AwacConfig(Section):
    """A rider that imitates replayed actions by their advantage (docs/equations.md)."""

    kind: Literal["awac"] = "awac"
    weight: Literal["positive", "exp", "uniform"] = Field(
        "positive",
        description="exp(max(A, 0)/beta), exp(A/beta), or 1 (behaviour cloning)",
    )
    advantage: Literal["percentile", "rms"] = Field(
        "percentile",
        description="A in units of the return spread, or of its own EMA deviation",
    )
    beta: Positive = Field(0.1, description="temperature of the weights")
    w_max: Positive = Field(20.0, description="clip of a weight")


class EmaConfig(Section):
    """A rider that is a slow copy of the actor."""

    kind: Literal["ema"] = "ema"
    rate: Share = Field(0.005, description="share of the actor taken over at each update")


RiderConfig = Annotated[AwacConfig | EmaConfig, Field(discriminator="kind")]


class ConfidenceGate(Section):
    """Who is more certain, and do they agree? (docs/equations.md, gate)."""

    kind: Literal["confidence"] = "confidence"
    alpha: float = Field(5.0, description="steepness")
    beta_div: Annotated[float, Field(ge=0)] = Field(0.5, description="cost of full disagreement")
    tau: Annotated[float, Field(ge=0)] = Field(0.5, description="nats per head that still agree")
    scale: Positive = Field(1.0, description="nats beyond tau over which the cost saturates")
    bias: float = Field(0.0, description="positive: prior against the partner")
    p_min: Share = Field(0.05, description="the partner acts at least this often")
    p_max: Share = Field(0.95, description="and at most this often")

    @model_validator(mode="after")
    def _ordered(self) -> ConfidenceGate:
        if self.p_min > self.p_max:
            raise ValueError(f"p_min={self.p_min} is above p_max={self.p_max}")
        return self


class FixedGate(Section):
    """The partner acts with one probability, whatever the policies say; 0 and 1: pure policies."""

    kind: Literal["fixed"] = "fixed"
    p: Share = 0.5


GateConfig = Annotated[ConfidenceGate | FixedGate, Field(discriminator="kind")]


class AgentConfig(Section):
    """DreamerV3, its riders, and who acts."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    imagination: ImaginationConfig = ImaginationConfig()
    optim: OptimiserConfig = OptimiserConfig()
    riders: dict[str, RiderConfig] = Field(
        {"awac": AwacConfig()}, description="learners on stopped features, by name"
    )
    acting: Literal["gated", "dreamer", "random"] = Field("gated", description="who lives the life")
    partner: str = Field("awac", description="the rider that the gate may choose")
    gate: GateConfig = ConfidenceGate()

    @model_validator(mode="after")
    def _partner_exists(self) -> AgentConfig:
        if self.acting == "gated" and self.partner not in self.riders:
            riders = ", ".join(self.riders) or "it has none"
            raise ValueError(f"partner={self.partner!r} is not a rider of this agent ({riders})")
        return self
