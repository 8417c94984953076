// Draws one definition as Splunk does, or, without one, writes the schema of definitions into the page.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { DashboardContextProvider } from '@splunk/dashboard-context';
import { DashboardCore } from '@splunk/dashboard-core';
import { createSchemaBasedOnPresets } from '@splunk/dashboard-definition';
import preset from '@splunk/dashboard-presets/EnterpriseViewOnlyPreset';
import { SplunkThemeProvider } from '@splunk/themes';

const root = document.getElementById('root');
const definition = window.definition;
if (definition) {
  createRoot(root).render(
    <SplunkThemeProvider family="enterprise" colorScheme="dark" density="comfortable">
      <DashboardContextProvider preset={preset} initialDefinition={definition}>
        <DashboardCore width="100%" height="auto" />
      </DashboardContextProvider>
    </SplunkThemeProvider>,
  );
} else {
  root.textContent = JSON.stringify(createSchemaBasedOnPresets(preset));
}
