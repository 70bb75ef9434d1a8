# What is installed for programs that embed ZLMediaKit: the library as one object whose only global symbols are those of
# zlm_journal.h, so that it goes with any other Rust library and any other SQLite; the same as a shared library; and, with
#
#   -DZLM_JOURNAL_MK_INCLUDE=<ZLMediaKit>/api/include -DZLM_JOURNAL_MK_LIBRARY=<…>/libmk_api.so
#
# the ready host over ZLMediaKit's C API. For Linux with GNU binutils.
set(ZLM_JOURNAL_MK_INCLUDE "" CACHE PATH "the folder of ZLMediaKit's C headers (mk_mediakit.h), for the host over libmk_api")
set(ZLM_JOURNAL_MK_LIBRARY "" CACHE FILEPATH "libmk_api, which the host over it and the examples are linked to")

if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    message(STATUS "zlm-journal: nothing to install on ${CMAKE_SYSTEM_NAME}")
    return()
endif()

include(GNUInstallDirs)
find_package(Threads REQUIRED)

file(STRINGS "${ZLM_JOURNAL_ROOT}/Cargo.toml" version REGEX "^version = " LIMIT_COUNT 1)
string(REGEX REPLACE "[^0-9.]" "" ZLM_JOURNAL_VERSION "${version}")
set(header "${ZLM_JOURNAL_ROOT}/include/zlm_journal.h")
file(STRINGS "${header}" abi REGEX "^#define ZLM_JOURNAL_ABI ")
string(REGEX REPLACE "[^0-9]" "" ZLM_JOURNAL_ABI "${abi}")

set(object "${CMAKE_CURRENT_BINARY_DIR}/package/zlm_journal.o")
add_custom_command(OUTPUT "${object}"
    COMMAND "${CMAKE_COMMAND}" "-DARCHIVE=${library}" "-DHEADER=${header}" "-DOBJECT=${object}"
        "-DAR=${CMAKE_AR}"
        "-DLINKER=${CMAKE_LINKER}" "-DNM=${CMAKE_NM}" "-DOBJCOPY=${CMAKE_OBJCOPY}" -P "${CMAKE_CURRENT_LIST_DIR}/hide.cmake"
    DEPENDS zlm_journal_cargo "${library}" "${CMAKE_CURRENT_LIST_DIR}/hide.cmake" "${header}"
    COMMENT "zlm-journal: hiding all symbols but those of the C API"
    VERBATIM)
# Both libraries are made of it, so it is made once.
add_custom_target(zlm_journal_object DEPENDS "${object}")
set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)

set(needs Threads::Threads m dl rt util gcc_s)
add_library(zlm_journal_static STATIC "${object}")
add_library(zlm_journal_shared SHARED "${object}")
foreach(kind static shared)
    add_dependencies(zlm_journal_${kind} zlm_journal_object)
    set_target_properties(zlm_journal_${kind} PROPERTIES
        LINKER_LANGUAGE C
        OUTPUT_NAME zlm_journal
        EXPORT_NAME ${kind}
        ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/package"
        LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/package")
    target_include_directories(zlm_journal_${kind} PUBLIC
        "$<BUILD_INTERFACE:${ZLM_JOURNAL_ROOT}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
endforeach()
target_link_libraries(zlm_journal_static INTERFACE ${needs})
target_link_libraries(zlm_journal_shared PRIVATE ${needs})
set_target_properties(zlm_journal_shared PROPERTIES VERSION "${ZLM_JOURNAL_VERSION}" SOVERSION "${ZLM_JOURNAL_ABI}")
target_link_options(zlm_journal_shared PRIVATE -Wl,--no-undefined)

set(installed zlm_journal_static zlm_journal_shared)
set(headers include/zlm_journal.h include/zlm_journal.hpp)
set(descriptions zlm-journal)
if(ZLM_JOURNAL_MK_INCLUDE)
    if(NOT EXISTS "${ZLM_JOURNAL_MK_INCLUDE}/mk_mediakit.h")
        message(FATAL_ERROR "zlm-journal: ${ZLM_JOURNAL_MK_INCLUDE} has no mk_mediakit.h: set ZLM_JOURNAL_MK_INCLUDE to the "
            "api/include of a ZLMediaKit tree")
    endif()
    file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/package/mk.map" "{ global: zlm_journal_mk_*; local: *; };\n")
    foreach(kind static shared)
        string(TOUPPER "${kind}" type)
        add_library(zlm_journal_mk_${kind} ${type} cpp/mk_host.cpp cpp/mk_proxy.cpp)
        set_target_properties(zlm_journal_mk_${kind} PROPERTIES
            CXX_STANDARD 11 CXX_STANDARD_REQUIRED ON
            POSITION_INDEPENDENT_CODE ON
            OUTPUT_NAME zlm_journal_mk
            EXPORT_NAME mk_${kind}
            ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/package"
            LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/package")
        target_include_directories(zlm_journal_mk_${kind} PRIVATE "${ZLM_JOURNAL_MK_INCLUDE}")
        target_compile_options(zlm_journal_mk_${kind} PRIVATE -Wall -Wextra)
        target_link_libraries(zlm_journal_mk_${kind} PUBLIC zlm_journal_${kind})
        list(APPEND installed zlm_journal_mk_${kind})
    endforeach()
    set_target_properties(zlm_journal_mk_shared PROPERTIES VERSION "${ZLM_JOURNAL_VERSION}" SOVERSION "${ZLM_JOURNAL_ABI}")
    target_link_options(zlm_journal_mk_shared PRIVATE
        "-Wl,--version-script=${CMAKE_CURRENT_BINARY_DIR}/package/mk.map")
    if(ZLM_JOURNAL_MK_LIBRARY)
        target_link_libraries(zlm_journal_mk_shared PRIVATE "${ZLM_JOURNAL_MK_LIBRARY}")
    endif()
    list(APPEND headers include/zlm_journal_mk.h)
    list(APPEND descriptions zlm-journal-mk)
endif()

install(TARGETS ${installed} EXPORT zlm_journalTargets
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES ${headers} DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")

include(CMakePackageConfigHelpers)
set(package "${CMAKE_INSTALL_LIBDIR}/cmake/zlm_journal")
install(EXPORT zlm_journalTargets NAMESPACE zlm_journal:: DESTINATION "${package}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/package/zlm_journalConfigVersion.cmake"
    VERSION "${ZLM_JOURNAL_VERSION}" COMPATIBILITY SameMinorVersion)
install(FILES cpp/package/zlm_journalConfig.cmake "${CMAKE_CURRENT_BINARY_DIR}/package/zlm_journalConfigVersion.cmake"
    DESTINATION "${package}")
foreach(description IN LISTS descriptions)
    configure_file("cpp/package/${description}.pc.in" "${CMAKE_CURRENT_BINARY_DIR}/package/${description}.pc" @ONLY)
    install(FILES "${CMAKE_CURRENT_BINARY_DIR}/package/${description}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endforeach()
