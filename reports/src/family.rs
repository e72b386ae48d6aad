//! What a kernel is for, as far as its name tells.

/// What GPU time goes to, in the order in which it is drawn and listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Attention: flash, paged, fused.
    Attention,
    /// Products of matrices.
    Gemm,
    /// Between devices.
    Communication,
    /// Copies and fills.
    Copy,
    /// Whole CUDA graphs, which were not looked into: anything may be inside.
    Graph,
    /// Everything else.
    Other,
}

/// The first row that has a part of the name decides, so what is special comes before what it is made of: a fused
/// attention built from CUTLASS is attention, and a copy inside a template argument of a product is none.
const PARTS: [(Family, &[&str]); 4] = [
    (
        Family::Communication,
        &[
            "nccl",
            "rccl",
            "nvshmem",
            "deep_ep",
            "allreduce",
            "all_reduce",
            "cross_device_reduce",
            "allgather",
            "all_gather",
            "reducescatter",
            "reduce_scatter",
            "alltoall",
            "all_to_all",
            "sendrecv",
        ],
    ),
    (
        Family::Attention,
        &[
            "attention",
            "attn",
            "flash_fwd",
            "flash_bwd",
            "flash::",
            "fmha",
            "sdpa",
            "flashmla",
            "xqa",
            "prefillwith",
            "decodewith",
        ],
    ),
    (
        Family::Gemm,
        &[
            "gemm",
            "gemv",
            "cutlass",
            "cublas",
            "nvjet",
            "xmma",
            "wgmma",
            "matmul",
            "mul_mat",
            "mma_kernel",
            "splitkreduce",
            "marlin",
            "fused_moe_kernel",
            "triton_mm",
            "triton_tem_fused_mm",
        ],
    ),
    (Family::Copy, &["memcpy", "memset", "copy", "fillfunctor"]),
];

impl Family {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Attention,
        Self::Gemm,
        Self::Communication,
        Self::Copy,
        Self::Graph,
        Self::Other,
    ];

    /// The family of a kernel, by its name as people write it or as CUPTI gave it.
    #[must_use]
    pub fn of(name: &str) -> Self {
        // The agent's own name for the launch of a whole graph.
        if name.starts_with("CUDA graph ") {
            return Self::Graph;
        }
        let name = name.to_ascii_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        PARTS
            .iter()
            .find(|(_, parts)| has(parts))
            .map_or(Self::Other, |(family, _)| *family)
    }

    /// Its name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Gemm => "GEMM",
            Self::Communication => "communication",
            Self::Copy => "copy",
            Self::Graph => "CUDA graphs",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_engines_launch_them() {
        for (family, names) in [
            (
                Family::Attention,
                &[
                    "void flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 32, 4, false, false, cutlass::half_t>>(Flash_fwd_params)",
                    "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64, 64, 256, 4>, true>(flash::Flash_fwd_params)",
                    "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel::Params)",
                    "void vllm::paged_attention_v2_kernel<unsigned short, unsigned short, 128, 16, 128>",
                    "void flashinfer::BatchDecodeWithPagedKVCacheKernel<2u, 4u, 8u>(Params)",
                    "cudnn_generated_fort_native_sdpa_sm80_flash_fprop_wmma_f16_knob_7",
                    "void flash_attn_ext_f16<128, 128, 8, 4>(char const*)",
                ][..],
            ),
            (
                Family::Gemm,
                &[
                    "ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x4_tn",
                    "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_64x6_tn_align8>(Params)",
                    "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT",
                    "void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128, 16, 4, 4>",
                    "void cublasLt::splitKreduce_kernel<32, 16, int, float, __half>",
                    "void mul_mat_q<(ggml_type)12, 64, false>(char const*, char const*)",
                    "volta_sgemm_128x64_nn",
                    "void marlin::Marlin<256, 1, 8, 8, 4, 8>(int4 const*)",
                    "void cute::gemm_device<Copy_Atom<SM80_CP_ASYNC>>(float*)",
                ],
            ),
            (
                Family::Communication,
                &[
                    "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
                    "void vllm::cross_device_reduce_1stage<__half, 2>(vllm::RankData*)",
                    "ncclKernel_ReduceScatter_RING_SIMPLE_Sum_uint8_t",
                ],
            ),
            (
                Family::Copy,
                &[
                    "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)>",
                    "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 2, 128, 1>",
                    "[CUDA memset]",
                ],
            ),
            (Family::Graph, &["CUDA graph 12"]),
            (
                Family::Other,
                &[
                    "void vllm::rms_norm_kernel<c10::Half>(c10::Half*, c10::Half const*)",
                    "void flashinfer::norm::RMSNormKernel<8u, __half>(__half*)",
                    "triton_poi_fused_add_mul_3",
                    "void cunn_SoftMaxForward<8, float, float, float>(float*, float const*, int)",
                    "my CUDA graph kernel",
                    "",
                ],
            ),
        ] {
            for name in names {
                assert_eq!(Family::of(name), family, "{name}");
            }
        }
    }

    #[test]
    fn parts_are_in_lower_case_as_names_are_when_they_are_compared() {
        let mut parts = PARTS.iter().flat_map(|(_, parts)| *parts);
        assert!(parts.all(|part| *part == part.to_ascii_lowercase()));
    }
}
