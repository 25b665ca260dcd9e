/* Symbol visibility and version of the public interface. */
#ifndef CLDSA_EXPORT_H
#define CLDSA_EXPORT_H

#define CLDSA_VERSION_MAJOR 0
#define CLDSA_VERSION_MINOR 1
#define CLDSA_VERSION_PATCH 0

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120 /* the baseline: every entry point used exists in OpenCL 1.2 */
#endif

#if defined(__GNUC__)
#define CLDSA_API __attribute__((visibility("default")))
#else
#define CLDSA_API
#endif

#endif
