//! The engine's work as kernels: rounds of a fixed length, in which each family has its usual share of the time.

use std::time::Duration;

use plimsoll_sim_cuda::{Cuda, CudaError, Direction, Function, Stream};

use crate::config::Quantization;

/// How long the device is busy with one round, ns. Real kernels are ten times shorter and as many more; the shares are what a
/// recording shows, and so few launches cost the demo nothing. Fewer would not fill CUPTI's buffers: while the device is never
/// idle, CUPTI gives back none that is not full.
const ROUND_NS: u64 = 4_000_000;
/// Work that is due and not yet launched is at most this; the rest of a long pause is forgotten.
const MOST_DUE_NS: f64 = 48_000_000.0;

/// Kernels of a round apart from the matrix products, with their share of it in thousandths. The names are as compilers write
/// them for servers of language models.
const KERNELS: [(&str, u64); 8] = [
    (
        "_Z24flash_fwd_splitkv_kernelILi128ELi64ELi128ELi4EEv16Flash_fwd_params",
        170,
    ),
    (
        "_ZN4vllm25paged_attention_v2_kernelI13__nv_bfloat16Li128ELi16EEEvPfPT_PKS3_S6_",
        120,
    ),
    (
        "_Z40ncclDevKernel_AllReduce_Sum_bf16_RING_LL24ncclDevKernelArgsStorageILm4096EE",
        50,
    ),
    ("_ZN4vllm15rms_norm_kernelIN3c108BFloat16EEEvPT_PKS3_S6_fii", 35),
    (
        "_ZN4vllm23rotary_embedding_kernelIN3c108BFloat16ELb1EEEvPKlPT_S6_PKS5_illiii",
        25,
    ),
    ("_ZN4vllm18act_and_mul_kernelIN3c108BFloat16EEEvPT_PKS3_i", 30),
    (
        "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEENS_6detail5ArrayIPcLm1EEEEEviT0_T1_",
        20,
    ),
    (
        "_ZN2at6native19cunn_SoftMaxForwardILi8EN3c108BFloat16EffEEvPT2_PKT0_i",
        20,
    ),
];

/// The matrix products, by how the weights are stored: of the layers, and of the answer's words (never quantized).
const OF_WORDS: (&str, u64) = ("ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn", 90);
const OF_LAYERS: [(Quantization, &str); 3] = [
    (
        Quantization::None,
        "_ZN7cutlass7Kernel2I63cutlass_80_tensorop_bf16_s16816gemm_bf16_128x128_64x3_tn_align8EEvNT_6ParamsE",
    ),
    (
        Quantization::Int8,
        "_ZN7cutlass7Kernel2I57cutlass_80_tensorop_i16832gemm_s8_256x128_64x3_tn_align16EEvNT_6ParamsE",
    ),
    (
        Quantization::Int4,
        "_ZN6marlin23marlin_gemm_int4_kernelILi4ELi16EEEvPKiS2_Pii",
    ),
];
const OF_LAYERS_SHARE: u64 = 420;

/// What goes to the card and comes from it in a round: tokens in, logits out.
const IN_BYTES: u64 = 256 << 10;
const OUT_BYTES: u64 = 1 << 20;

/// The engine's kernels and its stream.
pub(super) struct Kernels {
    cuda: Cuda,
    stream: Stream,
    of_layers: Vec<(Quantization, Function)>,
    others: Vec<Function>,
    due_ns: f64,
}

impl Kernels {
    pub(super) fn new(cuda: Cuda) -> Result<Self, CudaError> {
        let function = |name: &str, share: u64| cuda.function(name, Some(ROUND_NS * share / 1000));
        let of_layers = OF_LAYERS
            .iter()
            .map(|(weights, name)| Ok((*weights, function(name, OF_LAYERS_SHARE)?)));
        let others = KERNELS
            .iter()
            .chain([&OF_WORDS])
            .map(|(name, share)| function(name, *share));
        Ok(Self {
            cuda,
            stream: cuda.stream()?,
            of_layers: of_layers.collect::<Result<_, CudaError>>()?,
            others: others.collect::<Result<_, _>>()?,
            due_ns: 0.0,
        })
    }

    /// Launches what the device was busy with for a share of so long.
    pub(super) fn work(
        &mut self,
        elapsed: Duration,
        busy: f64,
        weights: Quantization,
    ) -> Result<(), CudaError> {
        self.due_ns = (self.due_ns + elapsed.as_secs_f64() * 1e9 * busy.clamp(0.0, 1.0)).min(MOST_DUE_NS);
        while self.due_ns >= ROUND_NS as f64 {
            self.due_ns -= ROUND_NS as f64;
            self.round(weights)?;
        }
        Ok(())
    }

    fn round(&self, weights: Quantization) -> Result<(), CudaError> {
        let (cuda, stream) = (&self.cuda, self.stream);
        cuda.copy(Direction::HostToDevice, IN_BYTES, Some(stream))?;
        for (_, function) in self.of_layers.iter().filter(|(of, _)| *of == weights) {
            cuda.launch(*function, stream)?;
        }
        for function in &self.others {
            cuda.launch(*function, stream)?;
        }
        cuda.copy(Direction::DeviceToHost, OUT_BYTES, Some(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_leave_a_little_for_the_copies() {
        let kernels: u64 = KERNELS.iter().map(|(_, share)| share).sum();
        let all = kernels + OF_WORDS.1 + OF_LAYERS_SHARE;
        assert!((950..1000).contains(&all), "{all}");
    }
}
