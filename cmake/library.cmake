# libcaisson, static and shared, from the layers' objects; and its installation. No RocksDB: a
# training process links this, and must not be aborted by a damaged index.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(caisson_layers caisson_base caisson_io caisson_compression caisson_engine caisson_client)
foreach(form caisson caisson_shared)
  if(form STREQUAL "caisson")
    add_library(${form} STATIC)
  else()
    add_library(${form} SHARED)
  endif()
  foreach(layer ${caisson_layers})
    target_sources(${form} PRIVATE $<TARGET_OBJECTS:${layer}>)
  endforeach()
  target_include_directories(${form} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/client/include>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/engine/include>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/io/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${form} PUBLIC cxx_std_20)
  target_link_libraries(${form} PUBLIC Threads::Threads PRIVATE PkgConfig::LIBURING PkgConfig::ZSTD)
  add_library(caisson::${form} ALIAS ${form})
endforeach()
set_target_properties(caisson_shared PROPERTIES OUTPUT_NAME caisson VERSION ${PROJECT_VERSION}
                      SOVERSION ${PROJECT_VERSION_MAJOR})

install(TARGETS caisson caisson_shared EXPORT caisson-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY client/include/ engine/include/ io/include/
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
set(caisson_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/caisson)
install(EXPORT caisson-targets NAMESPACE caisson:: DESTINATION ${caisson_config_dir})
configure_package_config_file(cmake/caisson-config.cmake.in
                              ${PROJECT_BINARY_DIR}/caisson-config.cmake
                              INSTALL_DESTINATION ${caisson_config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/caisson-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/caisson-config.cmake
              ${PROJECT_BINARY_DIR}/caisson-config-version.cmake
        DESTINATION ${caisson_config_dir})
